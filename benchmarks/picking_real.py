"""How well RELION's blob picker finds real annotated particles, before and after denoising, at three noise levels.

    python benchmarks/picking_real.py --data AutoCryoPicker --checkpoint general [--levels "1 frame"] [--count 6]
    python benchmarks/picking_real.py --data AutoCryoPicker --train-single 3      # two cores: 6 minutes a level
    python benchmarks/picking_real.py --micrographs Micrographs --picks Picks --diameters 150 190 --checkpoint general

The data are a checkout of the public repository jianlin-cheng/AutoCryoPicker (19 annotated micrographs of apoferritin,
EMPIAR-10146); `picking_data` says what is made of them. With --micrographs and --picks, the data are one's own:
`picking_own` says what is read. ``--train-single 3`` trains for 3 minutes on the micrographs themselves, from the small
general model, without their annotation, and adds a row for the result: convert --pairs single, train --init general.

Each method is picked by ``relion_autopick --LoG`` (apt-get install relion). A pick counts when its distance to a particle
that no better pick has taken is at most 0.35 of the larger diameter (45 angstrom for apoferritin); particles and picks
within 0.58 of it of the border (75 angstrom) count for nothing. One threshold holds for all micrographs of a method and a
level, the one with the highest mean F1: it is what a user finds by trying. Each row gives the mean F1, its difference to
the raw micrographs and to the best Gaussian, with the standard errors over micrographs, and how many files were reported
to look inverted (none of the 19 is).

Needs scipy and Pillow.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.registry import open_micrograph
from denoisers import HARDWARE_COLUMNS, Denoiser, add_denoiser_options, apply, chosen_denoisers, hardware
from picking_data import LEVELS, AnnotatedMicrograph, annotated_micrographs
from picking_own import LEVEL, add_own_options, own_micrographs
from picking_score import Points, f1_by_threshold, hits, log_picks
from quality_simulated import pixels_of
from rows import add_place_options, run_in_its_place
from single_exposures import command

TOLERANCE = 45 / 130
"""Of the larger diameter: how far from a particle a pick may be."""
BORDER = 75 / 130
"""Of the larger diameter: how near to the border nothing counts."""
THRESHOLDS = np.linspace(-3, 3, 121)
"""In standard deviations of a micrograph's figures of merit, as the picker's own adjustment of its threshold."""
COLUMNS = (
    *HARDWARE_COLUMNS,
    *("micrographs", "particles", "level", "method", "f1", "difference_to_raw", "standard_error", "threshold", "picks"),
    *("looks_inverted", "seconds", "specimen", "difference_to_gaussian", "error_to_gaussian"),
)


@dataclass(frozen=True)
class Picked:
    """F1 of one method at one level."""

    f1: Points
    """By micrograph (rows) and threshold (columns)."""
    picks: int
    """Picks at the lowest threshold, border left out."""
    looks_inverted: int = 0
    seconds: float = 0.0

    @property
    def best(self) -> int:
        """The column with the highest mean."""
        return int(self.f1.mean(0).argmax())


@dataclass(frozen=True)
class Judge:
    """The annotated micrographs, and how they are picked."""

    folder: Path
    diameters: tuple[float, float]
    shrink: float
    micrographs: list[AnnotatedMicrograph]
    specimen: str

    def __post_init__(self) -> None:
        """Refuse micrographs that one call of the picker cannot take."""
        sizes = sorted({one.pixel_size_angstrom for one in self.micrographs})
        if len(sizes) != 1:
            raise SystemExit(
                f"{len(self.micrographs)} micrographs with pixels of {sizes} angstrom; give some of one size"
            )

    @property
    def pixel_size_angstrom(self) -> float:
        """Sampling of all micrographs."""
        return self.micrographs[0].pixel_size_angstrom

    def source(self, level: str) -> Path:
        """Folder of the raw micrographs of a level, written when first asked for."""
        folder = self.folder / f"{level.replace(' ', '_')}_{len(self.micrographs)}" / "raw"
        if not folder.exists():
            folder.mkdir(parents=True)
            for one in self.micrographs:
                write(folder / f"{stem(one)}.mrc", one.pixels(level), self.pixel_size_angstrom)
        return folder

    def pick(self, source: Path, **more: float) -> Picked:
        """Pick a folder of micrographs and compare with the annotation."""
        picked = log_picks(
            source,
            source.with_name(f"{source.name}_picks"),
            pixel_size_angstrom=self.pixel_size_angstrom,
            diameters_angstrom=self.diameters,
            shrink=self.shrink,
        )
        rows, count = [], 0
        for one in self.micrographs:
            centres, merit = picked[stem(one)]
            hit = hits(centres, one.centres, self.tolerance_px())
            counts = self.away_from_border(centres, one)
            relative = (merit - merit.mean()) / (merit.std() or 1)
            particles = int(self.away_from_border(one.centres, one).sum())
            rows.append(f1_by_threshold(relative[counts], hit[counts], particles, THRESHOLDS))
            count += int(counts.sum())
        return Picked(np.array(rows), count, **more)  # type: ignore[arg-type]

    def particles(self) -> int:
        """Annotated particles that count."""
        return sum(int(self.away_from_border(one.centres, one).sum()) for one in self.micrographs)

    def tolerance_px(self) -> float:
        """How far from a particle a pick may be."""
        return TOLERANCE * self.diameters[1] / self.pixel_size_angstrom

    def away_from_border(self, points: Points, micrograph: AnnotatedMicrograph) -> npt.NDArray[np.bool_]:
        """Say which places count."""
        border = BORDER * self.diameters[1] / self.pixel_size_angstrom
        inside: npt.NDArray[np.bool_] = np.all(
            (points >= border) & (points < np.array(micrograph.shape) - border), axis=1
        )
        return inside


def main() -> int:
    """Write the micrographs, denoise and pick them; print a table and append CSV rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="checkout of AutoCryoPicker, or its 'cryo-EM Dataset'")
    add_own_options(parser)
    parser.add_argument("--specimen", default="apoferritin", help="what the rows call it (default apoferritin)")
    add_denoiser_options(parser)
    parser.add_argument(
        "--train-single", type=float, metavar="MINUTES", help="also train on the micrographs themselves"
    )
    parser.add_argument("--train-option", action="append", default=[], help="more of cryoplug train, as in --threads=1")
    parser.add_argument("--levels", nargs="+", default=list(LEVELS), choices=list(LEVELS), help="of noise, of --data")
    parser.add_argument("--count", type=int, help="micrographs, evenly chosen (default: all)")
    parser.add_argument(
        "--gaussian", type=float, nargs="*", default=[4.0, 8.0, 12.0, 16.0], help="sigmas in pixels to compare"
    )
    parser.add_argument("--diameters", type=float, nargs=2, default=[110.0, 130.0], help="angstrom (default 110 130)")
    parser.add_argument("--shrink", type=float, default=0.4, help="of RELION; 0.4 picks as well as 1 (default)")
    parser.add_argument("--chance", action="store_true", help="also score picks at random places")
    add_place_options(parser, "picking_real.csv")
    arguments = parser.parse_args()
    if bool(arguments.data) == bool(arguments.micrographs) or bool(arguments.micrographs) != bool(arguments.picks):
        parser.error("give --data, or --micrographs with --picks")
    return run_in_its_place(arguments, run, COLUMNS)


def run(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    """Give a row for each level and method."""
    if arguments.data:
        every = list(annotated_micrographs(arguments.data))
    else:
        every = list(own_micrographs(arguments.micrographs, arguments.picks, arguments.pixel_size))
    count = min(arguments.count or len(every), len(every))
    chosen = np.unique(np.linspace(0, len(every) - 1, count).round().astype(int))
    micrographs = [every[one] for one in chosen]
    judge = Judge(folder, tuple(arguments.diameters), arguments.shrink, micrographs, arguments.specimen)
    denoisers = chosen_denoisers(arguments)
    for level in arguments.levels if arguments.data else [LEVEL]:
        source = judge.source(level)
        blurred = {f"Gaussian, {sigma:g} px": blur(source, sigma) for sigma in arguments.gaussian}
        with ThreadPoolExecutor(2) as pool:
            found = dict(zip(("raw", *blurred), pool.map(judge.pick, [source, *blurred.values()]), strict=True))
        if arguments.chance:
            found["random places"] = at_random(judge)
        best = max((found[name] for name in blurred), key=lambda one: one.f1[:, one.best].mean(), default=None)
        for name, picked in found.items():
            yield row(judge, level, name, picked, found["raw"], best)
        trained = [] if arguments.train_single is None else [trained_on(source, arguments)]
        for denoiser in [*denoisers, *trained]:
            yield row(judge, level, denoiser.name, denoised(judge, denoiser, source), found["raw"], best)


def trained_on(source: Path, arguments: argparse.Namespace) -> Denoiser:
    """Train on a folder of micrographs as a user would who has nothing else."""
    store, models, minutes = source.with_name("single"), source.with_name("models"), arguments.train_single
    if not store.exists():
        options = ["--angpix", 2.6, "--store", "whole", "--test-split", 0]
        command("convert", ["--pairs", "single", source, *options, "-o", store])
    said = source.with_name("train.txt")
    if not said.exists():
        length = ["--minutes", minutes, "--val-split", 0, "--no-evaluation"]
        words = [store, "--init", "general", *length, *arguments.train_option]
        said.write_text(command("train", [*words, "--save", "--checkpoint-dir", models]))
    steps = re.findall(r"--minutes [^:]*: (\d+) steps", said.read_text())[-1]
    line = shlex.join([sys.executable, "-m", "cryoplug", "denoise", "--checkpoint", str((models / "unet").resolve())])
    return Denoiser(f"trained on them, {steps} steps", f"{line} {{input}} -o {{output}}")


def denoised(judge: Judge, denoiser: Denoiser, source: Path) -> Picked:
    """Denoise, then pick."""
    target = source.with_name(denoiser.name.replace(" ", "_"))
    applied = apply(denoiser, source, target)
    return judge.pick(target, looks_inverted=applied.talk.count("looks inverted"), seconds=applied.seconds)


def row(judge: Judge, level: str, name: str, picked: Picked, raw: Picked, gaussian: Picked | None) -> dict[str, object]:
    """Compare a method with the raw micrographs and with the best Gaussian, each at its best threshold."""
    best = picked.f1[:, picked.best]
    difference, error = above(picked, raw)
    to_gaussian: tuple[float, float] | None = None if gaussian is None else above(picked, gaussian)
    found = {
        **hardware(),
        "specimen": judge.specimen,
        "micrographs": len(best),
        "particles": judge.particles(),
        "level": level,
        "method": name,
        "f1": round(float(best.mean()), 4),
        "difference_to_raw": round(difference, 4),
        "standard_error": round(error, 4),
        "difference_to_gaussian": "" if to_gaussian is None else round(to_gaussian[0], 4),
        "error_to_gaussian": "" if to_gaussian is None else round(to_gaussian[1], 4),
        "threshold": round(float(THRESHOLDS[picked.best]), 2),
        "picks": picked.picks,
        "looks_inverted": picked.looks_inverted,
        "seconds": round(picked.seconds, 1),
    }
    more = "" if to_gaussian is None else f", to the best Gaussian {to_gaussian[0]:+.3f} +- {to_gaussian[1]:.3f}"
    more += f"; {picked.looks_inverted} reported to look inverted" if picked.looks_inverted else ""
    print(f"{level:10s} {name:28s} F1 {found['f1']:.3f}, to raw {difference:+.3f} +- {error:.3f}{more}", flush=True)
    return found


def above(picked: Picked, other: Picked) -> tuple[float, float]:
    """Give the mean difference of the best F1, micrograph by micrograph, and its standard error."""
    difference = picked.f1[:, picked.best] - other.f1[:, other.best]
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.nan
    return float(difference.mean()), float(error)


def at_random(judge: Judge) -> Picked:
    """Score as many random places as there are particles, no two nearer than a particle: what chance gives."""
    rng = np.random.default_rng(0)
    rows = []
    for one in judge.micrographs:
        places: list[npt.NDArray[np.float64]] = []
        apart = 1.4 * judge.tolerance_px()
        for place in rng.uniform(0, one.shape, (20_000, 2)):
            if len(places) < len(one.centres) and all(np.hypot(*(place - other)) > apart for other in places):
                places.append(place)
        centres = np.array(places)
        counts = judge.away_from_border(centres, one)
        hit = hits(centres, one.centres, judge.tolerance_px())
        particles = int(judge.away_from_border(one.centres, one).sum())
        rows.append(f1_by_threshold(np.zeros(int(counts.sum())), hit[counts], particles, THRESHOLDS[:60]))
    return Picked(np.array(rows), 0)


def blur(source: Path, sigma_px: float) -> Path:
    """Write a folder of blurred micrographs."""
    target = source.with_name(f"gaussian_{sigma_px:g}")
    target.mkdir(exist_ok=True)
    for path in source.glob("*.mrc"):
        with open_micrograph(path) as source_file:
            size = source_file.pixel_size_angstrom
        pixels = ndimage.gaussian_filter(pixels_of(path).astype(np.float64), sigma_px, mode="reflect")
        write(target / path.name, pixels, size)
    return target


def write(path: Path, pixels: npt.NDArray[np.float64], pixel_size_angstrom: float | None) -> None:
    write_mrc(path, pixels.astype(np.float32), pixel_size_angstrom=pixel_size_angstrom, label="picking_real")


def stem(one: AnnotatedMicrograph) -> str:
    return one.name.replace(".", "_")


if __name__ == "__main__":
    sys.exit(main())
