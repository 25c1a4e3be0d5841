"""A denoiser that never saw the molecule: simulated micrographs of maps, denoised by the commands, compared with the truth.

    python benchmarks/general_model.py --map ribosome.mrc groel.mrc --checkpoint general [--suite all] [--peer NAME=COMMAND]

The protocol: micrographs of 4096 x 4096 at 1.3 A/px, 40 e/A2, 0.8 to 2.5 um, textured ice, the camera's MTF; the figures are
means over four micrographs of a map, in dB of signal-to-noise after the best ``a*x + b``. The image (with its ice) is
compared with the radial Wiener filter that is fitted on the truth itself, the particles alone with the best Gaussian;
both comparisons are in the CSV for both truths, for elsewhere the rule is "never below the best Gaussian". Nothing is
trained. ``--suite`` adds other pixel sizes, doses and microscopes. On two cores a small run takes about two minutes:

    python benchmarks/general_model.py --map ribosome.mrc --size 2048 --count 2 --checkpoint general

With ``--folder`` the micrographs and what the simple filters reach are kept and used again for the next denoiser.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cryoplug.simulation.micrograph import SimulationSettings
from cryoplug.workflows.simulate import read_molecules
from denoisers import HARDWARE_COLUMNS, add_denoiser_options, apply, chosen_denoisers, hardware
from quality_simulated import TRUTHS, baseline_snr, denoised_snr, write
from rows import add_place_options, run_in_its_place

FILTERS = ("wiener", "gaussian")
SUITES: dict[str, list[dict[str, Any]]] = {
    "protocol": [{}],
    "pixels": [{"pixel_size_angstrom": size} for size in (0.6, 2.2, 4.0)],
    "doses": [{"dose_e_per_angstrom2": dose} for dose in (8.0, 20.0)],
    "faint": [{"dose_e_per_angstrom2": dose} for dose in (1.0, 3.0)],
    "microscopes": [{"voltage_kv": 200.0}, {"phase_shift_deg": (90.0, 90.0)}],
}
"""What differs from the protocol, by the name of the suite."""
MAX_FIELD_ANGSTROM = 8192.0
"""Micrographs of large pixels are made smaller: a field of this side holds 600 particles."""
COLUMNS = (
    *HARDWARE_COLUMNS,
    *("map", "micrographs", "pixel_size", "dose", "voltage_kv", "phase_plate", "ice_grain", "seed"),
    *("denoiser", "denoise_s"),
    *("clean_above_wiener_db", "clean_deviation_db", "particles_only_above_gaussian_db", "particles_only_deviation_db"),
    *("clean_above_gaussian_db", "particles_only_above_wiener_db", "lowest_clean_above_gaussian_db"),
    "lowest_particles_only_above_gaussian_db",
)
Scores = list[dict[str, dict[str, float]]]


def main() -> int:
    """Simulate, denoise, compare; print a table and append CSV rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--map", type=Path, nargs="+", required=True, help="density maps the denoiser has never seen")
    add_denoiser_options(parser)
    parser.add_argument("--suite", choices=[*SUITES, "all"], nargs="+", default=["protocol"])
    parser.add_argument("--count", type=int, default=4, help="micrographs of a map and condition (default 4)")
    parser.add_argument("--size", type=int, default=4096, help="side in pixels (default 4096)")
    parser.add_argument("--pixel-size", type=float, default=1.3, help="angstrom, of the protocol (default 1.3)")
    parser.add_argument("--dose", type=float, default=40.0, help="electrons per square angstrom (default 40)")
    parser.add_argument("--seed", type=int, default=1)
    add_place_options(parser, "general_model.csv")
    arguments = parser.parse_args()
    return run_in_its_place(arguments, run, COLUMNS)


def run(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    """Give a row for each map, condition and denoiser."""
    denoisers = chosen_denoisers(arguments)
    workers = min(arguments.count, len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(workers) as pool:
        for path in arguments.map:
            for settings in conditions(arguments, path):
                place = folder / path.stem / condition_name(settings)
                raw = simulated(place, settings, arguments.count, pool)
                yield from (row(settings, raw, raw_as(raw, name), name, "") for name in ("identity", "gaussian"))
                for denoiser in denoisers:
                    work = place / denoiser.name.replace(" ", "_")
                    shutil.rmtree(work, ignore_errors=True)
                    applied = apply(denoiser, place / "noisy", work / "denoised")
                    names = sorted(one.name for one in (place / "noisy").iterdir())
                    found = list(pool.map(denoised_snr, [(place, work, name) for name in names]))
                    yield row(settings, raw, found, denoiser.name, round(applied.seconds, 1))


def conditions(arguments: argparse.Namespace, path: Path) -> Iterator[SimulationSettings]:
    """Give the settings of each condition of the suites."""
    for suite in SUITES if "all" in arguments.suite else arguments.suite:
        for change in SUITES[suite]:
            wanted: dict[str, Any] = {
                "pixel_size_angstrom": arguments.pixel_size,
                "dose_e_per_angstrom2": arguments.dose,
                **change,
            }
            largest = int(MAX_FIELD_ANGSTROM / wanted["pixel_size_angstrom"]) // 2 * 2
            yield SimulationSettings(
                size_px=min(arguments.size, largest),
                seed=arguments.seed,
                molecules=read_molecules([path], []),
                **wanted,
            )


def condition_name(settings: SimulationSettings) -> str:
    """Name a folder after what differs from one condition to the next."""
    shift = settings.phase_shift_deg[0]
    return (
        f"{settings.size_px}px_{settings.pixel_size_angstrom:g}A_{settings.dose_e_per_angstrom2:g}e"
        f"_{settings.voltage_kv:g}kV" + (f"_plate{shift:g}" if shift else "")
    )


def simulated(place: Path, settings: SimulationSettings, count: int, pool: ProcessPoolExecutor) -> Scores:
    """Write the micrographs, or find them written before; give what the simple filters reach on each."""
    record = place / "baselines.json"
    if record.exists():
        stored = json.loads(record.read_text())
        if stored["count"] == count:
            return list(stored["raw"])
    shutil.rmtree(place, ignore_errors=True)
    begin = time.perf_counter()
    kinds = {kind: kind for kind in ("noisy", *TRUTHS)}
    list(pool.map(write, [(place, settings, index, kinds) for index in range(count)]))
    names = sorted(one.name for one in (place / "noisy").iterdir())
    raw = list(pool.map(baseline_snr, [(place, name) for name in names]))
    print(f"{place}: simulated and simple filters fitted in {time.perf_counter() - begin:.0f} s", flush=True)
    record.write_text(json.dumps({"count": count, "raw": raw}))
    return raw


def raw_as(raw: Scores, name: str) -> list[dict[str, float]]:
    """Give the scores of a simple filter in the form of those of a denoiser."""
    return [score[name] for score in raw]


def row(
    settings: SimulationSettings, raw: Scores, found: list[dict[str, float]], name: str, seconds: object
) -> dict[str, object]:
    """Compare with the simple filters, print a line, give a row."""
    above = {
        (truth, name): np.array([one[truth] - score[name][truth] for one, score in zip(found, raw, strict=True)])
        for truth in TRUTHS
        for name in FILTERS
    }
    image, particles = above["clean", "wiener"], above["particles_only", "gaussian"]
    (molecule,) = settings.molecules
    print(
        f"{molecule.name} {condition_name(settings)} {name}: image {image.mean():+.2f} to Wiener"
        f" ({above['clean', 'gaussian'].mean():+.2f} to Gaussian), particles {particles.mean():+.2f} to Gaussian",
        flush=True,
    )
    ddof = min(1, len(found) - 1)
    return {
        **hardware(),
        "map": molecule.name,
        "micrographs": f"{len(found)} of {settings.size_px}x{settings.size_px}",
        "pixel_size": settings.pixel_size_angstrom,
        "dose": settings.dose_e_per_angstrom2,
        "voltage_kv": settings.voltage_kv,
        "phase_plate": settings.phase_shift_deg[0],
        "ice_grain": settings.ice_grain_rad,
        "seed": settings.seed,
        "denoiser": name,
        "denoise_s": seconds,
        "clean_above_wiener_db": round(float(image.mean()), 3),
        "clean_deviation_db": round(float(image.std(ddof=ddof)), 3),
        "particles_only_above_gaussian_db": round(float(particles.mean()), 3),
        "particles_only_deviation_db": round(float(particles.std(ddof=ddof)), 3),
        "clean_above_gaussian_db": round(float(above["clean", "gaussian"].mean()), 3),
        "particles_only_above_wiener_db": round(float(above["particles_only", "wiener"].mean()), 3),
        "lowest_clean_above_gaussian_db": round(float(above["clean", "gaussian"].min()), 3),
        "lowest_particles_only_above_gaussian_db": round(float(particles.min()), 3),
    }


if __name__ == "__main__":
    sys.exit(main())
