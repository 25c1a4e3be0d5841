"""How well is the noise of a single exposure known? The law that convert measures, against noise that is known, by detector.

    python benchmarks/noise_law.py --map emd_5625.map EMD-3197.map            # two cores: 20 minutes
    python benchmarks/noise_law.py --detector counting tail_30 --dose 40      # two cores: 2 minutes

Each micrograph is simulated without noise and gets noise of a detector. Its law is measured as by convert --pairs single,
first from the spectrum alone, then with the places without particles that the general model finds. A row has the error of
both in dB, by band of the network's grid, and whether convert would have taken the micrograph.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cryoplug.core.fourier_crop import resample_image
from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.normalization import fit_normalization
from cryoplug.metrics.micrograph_noise import MicrographNoise
from cryoplug.metrics.noise_power import POINTS, STEP
from cryoplug.simulation.micrograph import SimulationSettings, simulate_micrograph
from cryoplug.workflows.convert.ice_probe import IceProbe
from cryoplug.workflows.convert.single_noise import describe_noise, measure_law
from cryoplug.workflows.simulate import read_molecules
from rows import append_rows
from single_exposures import COLOURS, Colour, modulation

BANDS = ((0.01, 0.02), (0.02, 0.04), (0.04, 0.06), (0.06, 0.08))
"""Cycles per pixel of the network's grid."""
ANGPIX = 2.6
COLUMNS = (
    *("date", "map", "particles", "size", "pixel_size", "dose", "ice_grain", "detector"),
    *(f"spectrum_{low:g}_{high:g}_db" for low, high in BANDS),
    *("spectrum_uncertainty_db", "spectrum_taken"),
    *(f"places_{low:g}_{high:g}_db" for low, high in BANDS),
    *("places_uncertainty_db", "places_taken", "remark"),
)


def radial(power: Callable[[np.ndarray], np.ndarray]) -> Colour:
    """Take a law of one frequency for both."""
    return lambda y, x: power(np.hypot(y, x))


def unweighted(frequency: np.ndarray, pixel_size: float = 1.3) -> np.ndarray:
    """Return what dose weights of 40 frames of 1 e/A2 leave of the noise when nothing makes good for them."""
    critical = 0.245 * (np.maximum(frequency, 1e-4) / pixel_size) ** -1.665 + 2.81
    weights = [np.exp(-dose / (2 * critical)) for dose in np.arange(0.5, 40)]
    return np.mean(np.square(weights), axis=0)


def dip(depth: float) -> Colour:
    """Return the noise of a camera that counts electrons once that arrive together."""
    return radial(lambda f: 1 - depth * np.exp(-((f / 0.15) ** 2)))


def tail(part: float) -> Colour:
    """Return noise of which so much more is below 0.03 cycles per pixel."""
    return radial(lambda f: 1 + part * np.exp(-((f / 0.03) ** 2)))


DETECTORS: dict[str, Colour] = {
    "counting": COLOURS["rescaled"],
    **{name: colour for name, colour in COLOURS.items() if name != "rescaled"},
    "smooth_colour": radial(lambda f: np.exp(0.3 * np.cos(2 * np.pi * f / 1.2))),
    "cds": dip(0.03),
    "coincidence_10": dip(0.1),
    "coincidence_20": dip(0.2),
    "tail_10": tail(0.12),
    "tail_30": tail(0.43),
    "tail_30_lorentz": radial(lambda f: 1 + 0.43 / (1 + (f / 0.02) ** 2)),
    "film_blur": radial(lambda f: 0.8 * modulation(f, 0.1) ** 2 + 0.2),
    "dose_weighted_only": radial(lambda f: unweighted(f)),
}


def main() -> int:
    """Measure; print a table and append CSV rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--map", type=Path, nargs="*", default=[], help="density maps; default: random molecules")
    parser.add_argument("--detector", nargs="+", choices=list(DETECTORS), default=list(DETECTORS))
    parser.add_argument("--dose", type=float, nargs="+", default=[40.0, 8.0], help="e/A2 (default 40 8)")
    parser.add_argument("--particles", type=int, nargs="+", help="on a micrograph (default: a quarter is covered)")
    parser.add_argument("--ice-grain", type=float, default=0.012, help="rms phase (default 0.012)")
    parser.add_argument("--size", type=int, default=3200, help="side in pixels (default 3200)")
    parser.add_argument("--pixel-size", type=float, default=1.3, help="angstrom (default 1.3)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--csv", type=Path, default=Path("noise_law.csv"), help="rows are appended to it")
    arguments = parser.parse_args()
    append_rows(arguments.csv, run(arguments), COLUMNS)
    return 0


def run(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Give a row for each specimen, dose and detector."""
    probe = IceProbe.if_there()
    if probe is None:
        raise SystemExit("this build of cryoplug has no general model")
    for settings, name in specimens(arguments):
        clean = simulate_micrograph(settings, 0).clean.astype(np.float64)
        white = np.random.default_rng(arguments.seed).poisson(clean) - clean
        terms = np.fft.rfft2(white)
        frequency = np.fft.fftfreq(clean.shape[0])[:, None], np.fft.rfftfreq(clean.shape[1])[None]
        for detector in arguments.detector:
            power = DETECTORS[detector]
            noise = np.fft.irfft2(terms * np.sqrt(power(*frequency)), s=clean.shape)
            spectrum, places, remark, true = measured(clean + noise, settings, probe, power)
            row: dict[str, object] = {
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "map": name,
                "particles": settings.particles or "",
                "size": settings.size_px,
                "pixel_size": settings.pixel_size_angstrom,
                "dose": settings.dose_e_per_angstrom2,
                "ice_grain": settings.ice_grain_rad,
                "detector": detector,
                **errors("spectrum", spectrum, true),
                **errors("places", places, true),
                "remark": remark,
            }
            shown = " | ".join(
                " ".join(f"{row[f'{source}_{low:g}_{high:g}_db']:+.2f}" for low, high in BANDS)
                + f" ({row[f'{source}_uncertainty_db']}{'' if row[f'{source}_taken'] else ', refused'})"
                for source in ("spectrum", "places")
            )
            print(f"{name} {settings.dose_e_per_angstrom2:g} e/A2 {detector}: {shown}", flush=True)
            yield row


def specimens(arguments: argparse.Namespace) -> Iterator[tuple[SimulationSettings, str]]:
    """Give what is simulated, and what it is called."""
    for path in arguments.map or [None]:
        for dose in arguments.dose:
            for particles in arguments.particles or [None]:
                settings = SimulationSettings(
                    size_px=arguments.size,
                    pixel_size_angstrom=arguments.pixel_size,
                    dose_e_per_angstrom2=dose,
                    ice_grain_rad=arguments.ice_grain,
                    particles=particles,
                    seed=arguments.seed,
                    specimen="random",
                    molecules=() if path is None else read_molecules([path], []),
                )
                yield settings, "random molecules" if path is None else path.stem


def measured(
    image: np.ndarray, settings: SimulationSettings, probe: IceProbe, power: Colour
) -> tuple[MicrographNoise, MicrographNoise, str, np.ndarray]:
    """Measure as convert does; give the noise without and with the places, a remark, and the true power."""
    side = 2 * round(settings.size_px * settings.pixel_size_angstrom / ANGPIX / 2)
    part = side / settings.size_px
    source = ArrayMicrograph(image.astype(np.float32), Path("simulated"))
    law = measure_law(source, pixel_size_angstrom=settings.pixel_size_angstrom, part=part)
    network = ArrayMicrograph(resample_image(image, (side, side)).astype(np.float32), Path("simulated"))
    normalization = fit_normalization(network, "zscore")
    spectrum = describe_noise(law, network, normalization, part=part)
    places, remark = probe.checked_in_ice(spectrum, network, normalization, pixel_size_angstrom=ANGPIX)
    angles = np.linspace(0, np.pi / 2, 45)[:, None]
    frequency = np.arange(POINTS) * STEP * part
    colour = power(frequency * np.sin(angles), frequency * np.cos(angles)).mean(axis=0)
    true = colour * float(image.mean()) * (part / normalization.scale) ** 2
    return spectrum, places, remark, true


def errors(name: str, noise: MicrographNoise, true: np.ndarray) -> dict[str, object]:
    """Give the mean error in each band in dB, and what is said of it."""
    decibels = 10 * np.log10(np.array(noise.power) / true)
    frequency = np.arange(POINTS) * STEP
    inside = [(frequency >= low - STEP / 2) & (frequency <= high + STEP / 2) for low, high in BANDS]
    found = {
        f"{name}_{low:g}_{high:g}_db": round(float(decibels[band].mean()), 3)
        for (low, high), band in zip(BANDS, inside, strict=True)
    }
    uncertainty = "" if noise.uncertainty_db is None else round(noise.uncertainty_db, 2)
    return {**found, f"{name}_uncertainty_db": uncertainty, f"{name}_taken": noise.trusted}


if __name__ == "__main__":
    sys.exit(main())
