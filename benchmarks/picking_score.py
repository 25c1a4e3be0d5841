"""RELION's blob picker, run on a folder of micrographs, and how well its picks fit the annotated particles."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from cryoplug.formats.star import read_star

Points = npt.NDArray[np.float64]
LOW_THRESHOLD = -10
"""Adjustment at which RELION keeps every peak that is far enough from a higher one; thresholds are applied afterwards."""


def log_picks(
    folder: Path, work: Path, *, pixel_size_angstrom: float, diameters_angstrom: tuple[float, float], shrink: float
) -> dict[str, tuple[Points, Points]]:
    """Run ``relion_autopick --LoG`` on the MRC files of a folder.

    `shrink` 0.5 to 1 is the size that RELION works at. At 0, which its interface proposes, it works at so few pixels that
    a position is a multiple of 10 angstrom and lies 10 angstrom too far left.

    Returns
    -------
    dict
        Centres ``(n, 2)`` as ``(y, x)`` in pixels and figures of merit, best first, by the stem of the file.
    """
    program = shutil.which("relion_autopick")
    if program is None:
        raise SystemExit("relion_autopick is not installed; Debian has it: apt-get install relion")
    work.mkdir(parents=True, exist_ok=True)
    low, high = diameters_angstrom
    options = {
        "--i": f"{folder.resolve()}/*.mrc",
        "--odir": "picks/",
        "--pickname": "log",
        "--angpix": pixel_size_angstrom,
        "--LoG_diam_min": low,
        "--LoG_diam_max": high,
        "--LoG_adjust_threshold": LOW_THRESHOLD,
        "--shrink": shrink,
        "--lowpass": 20,
    }
    command = [program, "--LoG", *(str(word) for pair in options.items() for word in pair)]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}")
    found = {}
    for path in sorted((work / "picks").rglob("*_log.star")):
        block = read_star(path).blocks[0]
        columns = [block.column(name) for name in ("rlnCoordinateY", "rlnCoordinateX", "rlnAutopickFigureOfMerit")]
        y, x, merit = (np.array([float(value) for value in column]) for column in columns)
        order = np.argsort(-merit, kind="stable")
        found[path.name.removesuffix("_log.star")] = (np.stack([y, x], 1)[order], merit[order])
    return found


def hits(picks: Points, truth: Points, tolerance_px: float) -> npt.NDArray[np.bool_]:
    """Say which picks, best first, take a particle that no better pick has taken and that is near enough."""
    taken = np.zeros(len(truth), bool)
    result = np.zeros(len(picks), bool)
    tree = cKDTree(truth)
    for number, near in enumerate(tree.query_ball_point(picks, tolerance_px)):
        free = [one for one in near if not taken[one]]
        if free:
            nearest = min(free, key=lambda one: float(np.hypot(*(truth[one] - picks[number]))))
            taken[nearest] = result[number] = True
    return result


def f1_by_threshold(
    merit: Points, hit: npt.NDArray[np.bool_], particles: int, thresholds: Points
) -> npt.NDArray[np.float64]:
    """Give F1 = 2 hits / (picks + particles) at each threshold; picks whose merit is at least the threshold count."""
    kept = merit[None, :] >= thresholds[:, None]
    return 2 * (kept & hit[None, :]).sum(1) / np.maximum(kept.sum(1) + particles, 1)
