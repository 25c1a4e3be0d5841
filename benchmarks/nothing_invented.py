"""What a denoiser makes of images in which there is nothing: noise, bare ice, carbon and gold edges, crystals, hot pixels.

    python benchmarks/nothing_invented.py --checkpoint general [--real mic.mrc:0.75 ...] [--pictures folder]

Each row is one image and one denoiser. The columns:

variance_fraction, fine_fraction
    Variance of the output over that of the input; the second of periods below 500 angstrom only. Below 0.01 where
    nothing is there; a channel "image" may keep the grain of the ice, a channel "particles" nothing.
gaussian_fraction
    The same of the input blurred by 20 angstrom, to compare.
grid_fraction
    Checkerboard: part of the output's variance at the frequencies of the network's grid (`artefacts.grid_fraction`).
halo_step, halo_sigma
    Bias beside an edge over the height of the step, and over the standard deviation of the raw pixels.
hot_trace
    Largest change that 12 hot pixels make elsewhere, over the standard deviation of the output.
looks_inverted
    1 where the command said so: right for "particles, inverted" alone.

Files named by --real are judged by grid, halo (beside the largest dark region, if there is one) and the message, and
noise with the radial spectrum of each is one more image in which nothing is. ``FILE:A`` gives a pixel size that the
header does not tell. --pictures writes a PNG of each image and output, to be looked at: no figure replaces it.

Needs scipy and Pillow.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from artefacts import dark_region, grid_fraction, halo, trace_of_hot_pixels, variance_fraction
from cryoplug.core.fourier_crop import cropped_shape, resample_image
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.registry import open_micrograph
from cryoplug.simulation.micrograph import SimulationSettings
from cryoplug.workflows.simulate import read_molecules
from denoisers import HARDWARE_COLUMNS, Denoiser, add_denoiser_options, apply, chosen_denoisers, hardware
from quality_simulated import pixels_of
from rows import add_place_options, run_in_its_place
from trap_images import Trap, noise_like, simulated_traps

Image64 = npt.NDArray[np.float64]
LONGEST_ANGSTROM = 500.0
HALO_REACH_ANGSTROM = 150.0
GAUSSIAN_ANGSTROM = 20.0
FINEST_SEEN_ANGSTROM = 2.0
"""Finer micrographs are cropped to --network-pixel before the network sees them."""
COLUMNS = (
    *HARDWARE_COLUMNS,
    *("image", "pixel_size", "denoiser", "variance_fraction", "fine_fraction", "gaussian_fraction", "grid_fraction"),
    *("halo_step", "halo_sigma", "hot_trace", "looks_inverted", "right"),
)
LEAST_VARIANCE = 1e-7
"""Part of the raw variance; an output of less is empty, and nobody sees a pattern in it."""
LIMITS = {"fine_fraction": 0.01, "grid_fraction": 0.003, "halo_step": 0.1, "hot_trace": 0.5}
"""A row is right when no figure that it must keep is above these."""


def main() -> int:
    """Write the images, denoise, measure; print a table and append CSV rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_denoiser_options(parser)
    parser.add_argument("--size", type=int, default=1536, help="side of the simulated images in pixels (default 1536)")
    parser.add_argument("--pixel-size", type=float, default=1.3, help="angstrom (default 1.3)")
    parser.add_argument(
        "--map", type=Path, help="molecule of the micrographs that are not empty; default: invented shapes"
    )
    parser.add_argument("--network-pixel", type=float, default=2.6, help="angstrom that the network sees (default 2.6)")
    parser.add_argument(
        "--real", nargs="*", default=[], metavar="FILE[:A]", help="real micrographs, with pixel size if unset"
    )
    parser.add_argument("--pictures", type=Path, help="folder for a PNG of each image and output")
    add_place_options(parser, "nothing_invented.csv")
    arguments = parser.parse_args()
    return run_in_its_place(arguments, run, COLUMNS)


def run(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    """Give a row for each image and denoiser."""
    settings = SimulationSettings(
        size_px=arguments.size,
        pixel_size_angstrom=arguments.pixel_size,
        seed=5,
        molecules=read_molecules([] if arguments.map is None else [arguments.map], []),
    )
    traps = [*simulated_traps(settings), *real_traps(arguments.real)]
    sources = {trap.name: folder / "raw" / file_name(trap) for trap in traps}
    for trap in traps:
        # One folder each: what the command says is then about this image.
        place = sources[trap.name]
        place.mkdir(parents=True, exist_ok=True)
        pixels = trap.pixels.astype(np.float32)
        write_mrc(place / "image.mrc", pixels, pixel_size_angstrom=trap.pixel_size_angstrom, label="nothing_invented")
    for denoiser in chosen_denoisers(arguments):
        outputs: dict[str, Image64] = {}
        for trap in traps:
            target = folder / denoiser.name.replace(" ", "_") / file_name(trap)
            applied = apply(denoiser, sources[trap.name], target)
            outputs[trap.name] = pixels_of(target / "image.mrc").astype(np.float64)
            inverted = int("inverted" in applied.talk)
            yield row(trap, denoiser, outputs, inverted, arguments)


def real_traps(files: list[str]) -> Iterator[Trap]:
    """Give real micrographs and, for each, noise of its spectrum."""
    for number, text in enumerate(files):
        name, _, stated = text.rpartition(":") if text.rpartition(":")[2].replace(".", "").isdigit() else (text, "", "")
        with open_micrograph(Path(name)) as source:
            pixels = source.read_rows(0, source.shape[0]).astype(np.float64)
            pixel = float(stated) if stated else source.pixel_size_angstrom
        if pixel is None:
            raise SystemExit(f"{name}: the header tells no pixel size; give it as {name}:1.06")
        region = dark_region(pixels, blur_px=max(4.0, 30 / pixel))
        yield Trap(Path(name).stem, pixels, pixel, empty=False, region=region if region.any() else None)
        noise = noise_like(pixels, np.random.default_rng(number), longest_px=LONGEST_ANGSTROM / pixel)
        # The spectrum of a real micrograph has its structure in it: how much, nobody knows.
        yield Trap(f"noise like {Path(name).stem}", noise, pixel, truth_fraction=None)


def row(
    trap: Trap, denoiser: Denoiser, outputs: dict[str, Image64], inverted: int, arguments: argparse.Namespace
) -> dict[str, object]:
    """Measure one output, print a line, give a row."""
    output, pixel = outputs[trap.name], trap.pixel_size_angstrom
    raw = trap.pixels
    if trap.hot is not None:
        raw = raw.copy()
        raw[tuple(trap.hot.T)] = np.median(raw)
    longest = LONGEST_ANGSTROM / pixel
    blurred = ndimage.gaussian_filter(raw, GAUSSIAN_ANGSTROM / pixel)
    found: dict[str, float] = {
        "variance_fraction": variance_fraction(output, raw),
        "fine_fraction": variance_fraction(output, raw, longest_px=longest),
        "gaussian_fraction": variance_fraction(blurred, raw, longest_px=longest),
    }
    if found["variance_fraction"] > LEAST_VARIANCE:
        found["grid_fraction"] = grid_fraction(on_network_grid(output, pixel, arguments.network_pixel))
    if trap.region is not None and denoiser.target != "particles":
        reach = round(HALO_REACH_ANGSTROM / pixel)
        found["halo_step"], found["halo_sigma"] = halo(output, raw, trap.region, reach_px=reach)
    if trap.hot is not None and trap.twin in outputs:
        found["hot_trace"] = trace_of_hot_pixels(output, outputs[trap.twin], trap.hot, raw_deviation=float(raw.std()))
    wrong = [key for key in sorted(LIMITS) if key in found and not found[key] <= limit(key, trap, denoiser)]
    if inverted != int(trap.inverted):
        wrong.append("looks_inverted")
    text = ", ".join(f"{key} {value:.3g}" for key, value in found.items())
    print(f"{trap.name} | {denoiser.name}: {text}{'; NOT RIGHT: ' + ', '.join(wrong) if wrong else ''}", flush=True)
    if arguments.pictures is not None:
        picture(trap, raw, output, arguments.pictures / f"{denoiser.name}_{file_name(trap)}.png".replace(" ", "_"))
    return {
        **hardware(),
        "image": trap.name,
        "pixel_size": pixel,
        "denoiser": denoiser.name,
        **{key: float(f"{value:.4g}") for key, value in found.items()},
        "looks_inverted": inverted,
        "right": int(not wrong),
    }


def on_network_grid(output: Image64, pixel_size_angstrom: float, network_angstrom: float) -> Image64:
    """Undo the padding in Fourier space: finer micrographs are cropped to the network's pixels, and have nothing beyond."""
    if pixel_size_angstrom >= FINEST_SEEN_ANGSTROM:
        return output
    height, width = output.shape
    shape = cropped_shape((height, width), pixel_size_angstrom=pixel_size_angstrom, target_angstrom=network_angstrom)
    return resample_image(output.astype(np.float32), shape).astype(np.float64)


def limit(key: str, trap: Trap, denoiser: Denoiser) -> float:
    """Give what a figure may reach: the particle channel keeps nothing of an empty image, the others its structure."""
    if key != "fine_fraction":
        return LIMITS[key]
    if not trap.empty:
        return float("inf")
    if denoiser.target == "particles":
        return LIMITS[key]
    return float("inf") if trap.truth_fraction is None else trap.truth_fraction + LIMITS[key]


def picture(trap: Trap, raw: Image64, output: Image64, path: Path) -> None:
    """Draw the raw image, the same blurred, and the output, whole and the middle at full size."""
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(15, 10), layout="constrained")
    axes = figure.subplots(2, 3)
    blurred = ndimage.gaussian_filter(raw, GAUSSIAN_ANGSTROM / 2 / trap.pixel_size_angstrom)
    side = min(400, *raw.shape)
    top, left = (length // 2 - side // 2 for length in raw.shape)
    for column, (name, image) in enumerate({"raw": raw, "blurred": blurred, path.stem: output}.items()):
        low, high = np.quantile(image, [0.003, 0.997])
        for row_number, part in enumerate((image, image[top : top + side, left : left + side])):
            axes[row_number, column].imshow(part, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axes[row_number, column].set_axis_off()
        axes[0, column].set_title(name, fontsize=9)
    figure.savefig(path, dpi=60)


def file_name(trap: Trap) -> str:
    return trap.name.replace(" ", "_").replace(",", "")


if __name__ == "__main__":
    sys.exit(main())
