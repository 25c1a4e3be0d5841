"""How well RELION's blob picker finds real annotated particles, before and after denoising, at three noise levels.

    python benchmarks/picking_real.py --data AutoCryoPicker --checkpoint general [--levels "1 frame"] [--count 6]

The data are a checkout of the public repository jianlin-cheng/AutoCryoPicker (19 annotated micrographs of apoferritin,
EMPIAR-10146); `picking_data` says what is made of them. Each method is picked by ``relion_autopick --LoG`` (apt-get
install relion). A pick counts when its distance to a particle that no better pick has taken is at most 45 angstrom;
particles and picks within 75 angstrom of the border count for nothing. One threshold holds for all micrographs of a
method and a level, the one with the highest mean F1: it is what a user finds by trying. Each row gives the mean F1, and
its difference to the raw micrographs with the standard error over micrographs, and how many files were reported to look
inverted (none is).

Needs scipy and Pillow.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cryoplug.formats.mrc import write_mrc
from denoisers import HARDWARE_COLUMNS, Denoiser, add_denoiser_options, apply, chosen_denoisers, hardware
from picking_data import LEVELS, PIXEL_SIZE_ANGSTROM, AnnotatedMicrograph, annotated_micrographs
from picking_score import Points, f1_by_threshold, hits, log_picks
from quality_simulated import pixels_of
from rows import add_place_options, run_in_its_place

TOLERANCE_ANGSTROM = 45.0
BORDER_ANGSTROM = 75.0
THRESHOLDS = np.linspace(-3, 3, 121)
"""In standard deviations of a micrograph's figures of merit, as the picker's own adjustment of its threshold."""
COLUMNS = (
    *HARDWARE_COLUMNS,
    *("micrographs", "particles", "level", "method", "f1", "difference_to_raw", "standard_error", "threshold", "picks"),
    *("looks_inverted", "seconds"),
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
    micrographs: list[AnnotatedMicrograph] = field(default_factory=list)

    def source(self, level: str) -> Path:
        """Folder of the raw micrographs of a level, written when first asked for."""
        folder = self.folder / f"{level.replace(' ', '_')}_{len(self.micrographs)}" / "raw"
        if not folder.exists():
            folder.mkdir(parents=True)
            for one in self.micrographs:
                write(folder / f"{stem(one)}.mrc", one.levels[level])
        return folder

    def pick(self, source: Path, **more: float) -> Picked:
        """Pick a folder of micrographs and compare with the annotation."""
        picked = log_picks(
            source,
            source.with_name(f"{source.name}_picks"),
            pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
            diameters_angstrom=self.diameters,
            shrink=self.shrink,
        )
        rows, count = [], 0
        for one in self.micrographs:
            centres, merit = picked[stem(one)]
            shape = next(iter(one.levels.values())).shape
            hit = hits(centres, one.centres, TOLERANCE_ANGSTROM / PIXEL_SIZE_ANGSTROM)
            counts = away_from_border(centres, shape)
            relative = (merit - merit.mean()) / (merit.std() or 1)
            particles = int(away_from_border(one.centres, shape).sum())
            rows.append(f1_by_threshold(relative[counts], hit[counts], particles, THRESHOLDS))
            count += int(counts.sum())
        return Picked(np.array(rows), count, **more)  # type: ignore[arg-type]

    def particles(self) -> int:
        """Annotated particles that count."""
        return sum(
            int(away_from_border(one.centres, next(iter(one.levels.values())).shape).sum()) for one in self.micrographs
        )


def main() -> int:
    """Write the micrographs, denoise and pick them; print a table and append CSV rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="checkout of AutoCryoPicker, or its 'cryo-EM Dataset'")
    add_denoiser_options(parser)
    parser.add_argument("--levels", nargs="+", default=list(LEVELS), choices=list(LEVELS))
    parser.add_argument("--count", type=int, default=19, help="micrographs, evenly chosen (default 19: all)")
    parser.add_argument(
        "--gaussian", type=float, nargs="*", default=[4.0, 8.0, 12.0], help="sigmas in pixels to compare"
    )
    parser.add_argument("--diameters", type=float, nargs=2, default=[110.0, 130.0], help="angstrom (default 110 130)")
    parser.add_argument("--shrink", type=float, default=0.4, help="of RELION; 0.4 picks as well as 1 (default)")
    parser.add_argument("--chance", action="store_true", help="also score picks at random places")
    add_place_options(parser, "picking_real.csv")
    return run_in_its_place(parser.parse_args(), run, COLUMNS)


def run(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    """Give a row for each level and method."""
    every = list(annotated_micrographs(arguments.data))
    chosen = np.unique(np.linspace(0, len(every) - 1, min(arguments.count, len(every))).round().astype(int))
    judge = Judge(folder, tuple(arguments.diameters), arguments.shrink, [every[one] for one in chosen])
    denoisers = chosen_denoisers(arguments)
    for level in arguments.levels:
        source = judge.source(level)
        blurred = {f"Gaussian, {sigma:g} px": blur(source, sigma) for sigma in arguments.gaussian}
        with ThreadPoolExecutor(2) as pool:
            found = dict(zip(("raw", *blurred), pool.map(judge.pick, [source, *blurred.values()]), strict=True))
        if arguments.chance:
            found["random places"] = at_random(judge)
        for name, picked in found.items():
            yield row(judge, level, name, picked, found["raw"])
        for denoiser in denoisers:
            yield row(judge, level, denoiser.name, denoised(judge, denoiser, source), found["raw"])


def denoised(judge: Judge, denoiser: Denoiser, source: Path) -> Picked:
    """Denoise, then pick."""
    target = source.with_name(denoiser.name.replace(" ", "_"))
    applied = apply(denoiser, source, target)
    return judge.pick(target, looks_inverted=applied.talk.count("looks inverted"), seconds=applied.seconds)


def row(judge: Judge, level: str, name: str, picked: Picked, raw: Picked) -> dict[str, object]:
    """Compare a method with the raw micrographs, each at its best threshold, micrograph by micrograph."""
    best, best_raw = picked.f1[:, picked.best], raw.f1[:, raw.best]
    difference = best - best_raw
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else float("nan")
    found = {
        **hardware(),
        "micrographs": len(difference),
        "particles": judge.particles(),
        "level": level,
        "method": name,
        "f1": round(float(best.mean()), 4),
        "difference_to_raw": round(float(difference.mean()), 4),
        "standard_error": round(float(error), 4),
        "threshold": round(float(THRESHOLDS[picked.best]), 2),
        "picks": picked.picks,
        "looks_inverted": picked.looks_inverted,
        "seconds": round(picked.seconds, 1),
    }
    more = f"; {picked.looks_inverted} reported to look inverted" if picked.looks_inverted else ""
    print(
        f"{level:10s} {name:28s} F1 {found['f1']:.3f}, to raw {found['difference_to_raw']:+.3f} +- {error:.3f}{more}",
        flush=True,
    )
    return found


def at_random(judge: Judge) -> Picked:
    """Score as many random places as there are particles, no two nearer than a particle: what chance gives."""
    rng = np.random.default_rng(0)
    rows = []
    for one in judge.micrographs:
        shape = next(iter(one.levels.values())).shape
        places: list[npt.NDArray[np.float64]] = []
        apart = 1.4 * TOLERANCE_ANGSTROM / PIXEL_SIZE_ANGSTROM
        for place in rng.uniform(0, shape, (20_000, 2)):
            if len(places) < len(one.centres) and all(np.hypot(*(place - other)) > apart for other in places):
                places.append(place)
        centres = np.array(places)
        counts = away_from_border(centres, shape)
        hit = hits(centres, one.centres, TOLERANCE_ANGSTROM / PIXEL_SIZE_ANGSTROM)
        particles = int(away_from_border(one.centres, shape).sum())
        rows.append(f1_by_threshold(np.zeros(int(counts.sum())), hit[counts], particles, THRESHOLDS[:60]))
    return Picked(np.array(rows), 0)


def away_from_border(points: Points, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    border = BORDER_ANGSTROM / PIXEL_SIZE_ANGSTROM
    inside: npt.NDArray[np.bool_] = ((points >= border) & (points < np.array(shape) - border)).all(1)
    return inside


def blur(source: Path, sigma_px: float) -> Path:
    """Write a folder of blurred micrographs."""
    target = source.with_name(f"gaussian_{sigma_px:g}")
    target.mkdir(exist_ok=True)
    for path in source.glob("*.mrc"):
        write(target / path.name, ndimage.gaussian_filter(pixels_of(path).astype(np.float64), sigma_px, mode="reflect"))
    return target


def write(path: Path, pixels: npt.NDArray[np.float64]) -> None:
    write_mrc(path, pixels.astype(np.float32), pixel_size_angstrom=PIXEL_SIZE_ANGSTROM, label="picking_real")


def stem(one: AnnotatedMicrograph) -> str:
    return one.name.replace(".", "_")


if __name__ == "__main__":
    sys.exit(main())
