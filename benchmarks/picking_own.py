"""Micrographs with picks that somebody trusts: files of any format, and coordinates in STAR or EMAN box files.

A folder of picks has a file for each micrograph, ``X.box``, ``X.star`` or ``X_something.star`` for ``X.mrc``, as RELION,
crYOLO, EMAN and ``cryoplug simulate`` write them. One STAR file with the column ``rlnMicrographName``, such as RELION's
``particles.star``, serves as well. Positions count pixels from the first column and the first row of the file, whose centres
are 0; a box is given by its corner nearest to them, its width and its height.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cryoplug.formats.registry import open_micrograph
from cryoplug.formats.star import read_star
from picking_data import AnnotatedMicrograph
from quality_simulated import pixels_of

LEVEL = "as they are"
"""How rows call the noise of these micrographs."""
Centres = npt.NDArray[np.float64]


def add_own_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name one's own micrographs and picks."""
    parser.add_argument("--micrographs", type=Path, nargs="+", help="instead of --data: micrographs with picks")
    parser.add_argument("--picks", type=Path, help="of --micrographs: folder of STAR or box files, or one STAR file")
    parser.add_argument(
        "--pixel-size", type=float, help="of --micrographs, in angstrom (default: as their headers say)"
    )


def own_micrographs(
    paths: list[Path], picks: Path, pixel_size_angstrom: float | None = None
) -> Iterator[AnnotatedMicrograph]:
    """Give the micrographs that have picks, in order; others are left out, and told.

    Parameters
    ----------
    paths
        Micrographs, or folders of MRC files.
    picks
        Their picks; see above.
    pixel_size_angstrom
        Sampling of all micrographs; None: what their headers say.
    """
    files = [file for path in paths for file in (sorted(path.glob("*.mrc")) if path.is_dir() else [path])]
    listed = None if picks.is_dir() else centres_by_micrograph(picks)
    bare = []
    for path in files:
        centres = picked_in(picks, path.stem) if listed is None else listed.get(path.stem)
        if centres is None:
            bare.append(path.name)
            continue
        with open_micrograph(path) as source:
            shape, size = source.shape, pixel_size_angstrom or source.pixel_size_angstrom
        if not size:
            raise SystemExit(f"{path}: the header has no pixel size; give --pixel-size")
        yield AnnotatedMicrograph(path.stem, shape, partial(pixels_as_they_are, path), centres, size)
    if bare:
        print(f"{len(bare)} micrographs have no picks in {picks} and are left out, as {bare[0]}", flush=True)


def pixels_as_they_are(path: Path, level: str) -> npt.NDArray[np.float64]:
    """Read a micrograph; there is one `level` alone."""
    assert level == LEVEL
    return pixels_of(path).astype(np.float64)


def picked_in(folder: Path, stem: str) -> Centres | None:
    """Read the picks of one micrograph, ``(n, 2)`` as ``(y, x)`` in pixels; None without a file."""
    every = sorted(path for path in folder.iterdir() if path.suffix in (".star", ".box"))
    found = [path for path in every if path.stem == stem] or [
        path for path in every if path.stem.startswith(f"{stem}_")
    ]
    if len(found) > 1:
        raise SystemExit(f"{folder}: {len(found)} files fit {stem}: {found[0].name}, {found[1].name}; leave one")
    if not found:
        return None
    if found[0].suffix == ".box":
        return centres_of_boxes(found[0])
    return next(iter(centres_by_micrograph(found[0]).values()), np.empty((0, 2)))


def centres_of_boxes(path: Path) -> Centres:
    """Read the middles of an EMAN box file: corner x and y, width, height."""
    rows = [line.split()[:4] for line in path.read_text().splitlines() if line.strip()]
    boxes = np.array(rows, np.float64).reshape(-1, 4)
    return boxes[:, 1::-1] + boxes[:, 3:1:-1] / 2


def centres_by_micrograph(path: Path) -> dict[str, Centres]:
    """Read the picks of a STAR file by the stem of the micrograph; a file that names none is of one, called ``""``."""
    for block in read_star(path).blocks:
        if {"rlnCoordinateX", "rlnCoordinateY"} <= set(block.columns):
            break
    else:
        raise SystemExit(f"{path}: no table has rlnCoordinateX and rlnCoordinateY")
    at = np.array([block.column("rlnCoordinateY"), block.column("rlnCoordinateX")], np.float64).T.reshape(-1, 2)
    if "rlnMicrographName" not in block.columns:
        return {"": at}
    stems = np.array([Path(name).stem for name in block.column("rlnMicrographName")])
    return {str(stem): at[stems == stem] for stem in dict.fromkeys(stems)}
