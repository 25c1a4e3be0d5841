"""The shifts of a movie's frames from RELION's motion correction: find the STAR file of a movie, and read it.

Only the shifts of whole frames (``data_global_shift``) are used; the local model is not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryoplug.errors import FormatError
from cryoplug.formats.star import StarBlock, read_star
from cryoplug.inputs.discovered import known_endings, split_ending

METADATA_COLUMN = "rlnMicrographMetadata"
NOT_OBSERVED = -9999.0
"""What RELION writes as both shifts of a frame that it did not sum."""
MOVIE_FIELD = "rlnMicrographMovieName"
GAIN_FIELD = "rlnMicrographGainName"


@dataclass(frozen=True)
class Motion:
    """The contents of the motion STAR file of one movie. Rows are in the order of all readers: row 0 is a TIFF's lowest."""

    path: Path
    """The STAR file."""
    movie_name: str
    """The movie as RELION named it, from the project's folder."""
    shape: tuple[int, int]
    """``(y, x)`` of the frames that the shifts were measured on."""
    frames: int
    """Number of frames in the movie; for EER the number of groups of raw frames."""
    first_frame: int
    """The first one that RELION summed, from 1."""
    group: int
    """Raw frames in each frame: 1, except for EER."""
    listed: int
    """Frames in the list of shifts; RELION lists every one."""
    shifts: dict[int, tuple[float, float]]
    """For each frame (from 1), the shift ``(y, x)`` of its content in pixels. Frames that RELION left out are missing. Empty
    if RELION knew no motion, as after MotionCor2 1.5 and later."""
    hot_pixels: tuple[tuple[int, int], ...]
    """``(y, x)`` of pixels that RELION replaced."""
    pixel_size_angstrom: float | None
    """Pixel size of these frames."""
    binning: float
    """Side of a pixel of the micrograph, in pixels of a frame; 1 or more."""
    gain_name: str
    """The gain reference that RELION used; empty if none is named."""
    has_local_model: bool
    """Whether there is also a model of local motion."""


def motion_beside(movie: Path) -> Path | None:
    """Give the STAR file that lies beside a movie under the same name, if there is one."""
    stem, _ = split_ending(movie.name, known_endings())
    candidate = movie.with_name(f"{stem}.star")
    return candidate if os.path.isfile(candidate) else None  # noqa: PTH113 -- is_file raises without permission


def project_folders(path: Path) -> tuple[str, ...]:
    """Give the folders that paths in a STAR file may start from: the working folder, then those above the file."""
    return ("", *map(str, path.absolute().parents))


def look_up(name: str, folders: Sequence[str]) -> tuple[Path, str]:
    """Find a path that a STAR file names in the first folder that has it; give that folder, too."""
    if not name.startswith("/"):
        for folder in folders:
            candidate = os.path.join(folder, name)  # noqa: PTH118 -- a third of the time of Path for 100,000 names
            if os.path.lexists(candidate):
                return Path(candidate), folder
    return Path(name), ""


def read_motion(path: Path) -> Motion | None:
    """Read the motion STAR file of a movie; None for a STAR file of another kind.

    Raises
    ------
    InputError
        It cannot be read, or a number in it is wrong.
    """
    star = read_star(path)
    general, table = star.block("general"), star.block("global_shift")
    if general is None or table is None:
        return None
    fields = dict(zip(general.columns, general.rows[0], strict=True)) if general.rows else {}
    height, width, frames = (_whole(path, fields, f"rlnImageSize{axis}") for axis in "YXZ")
    first = _whole(path, fields, _FIRST) if _FIRST in fields else 1
    model = star.block("local_motion_model")
    size = fields.get("rlnMicrographOriginalPixelSize")
    return Motion(
        path=path,
        movie_name=fields.get(MOVIE_FIELD, ""),
        shape=(height, width),
        frames=frames,
        first_frame=first,
        group=_whole(path, fields, "rlnEERGrouping") if "rlnEERGrouping" in fields else 1,
        listed=len(table.rows),
        shifts=_shifts(path, table, (height, width), range(first, frames + 1)),
        hot_pixels=_hot_pixels(path, star.block("hot_pixels"), (height, width)),
        pixel_size_angstrom=(_number(path, "rlnMicrographOriginalPixelSize", size) or None) if size else None,
        binning=_binning(path, fields),
        gain_name=fields.get(GAIN_FIELD, ""),
        has_local_model=model is not None and bool(model.rows),
    )


_FIRST = "rlnMicrographStartFrame"
_BINNING = "rlnMicrographBinning"
_MOST_BINNING = 64


def _shifts(path: Path, table: StarBlock, shape: tuple[int, int], summed: range) -> dict[int, tuple[float, float]]:
    """Give the shift ``(y, x)`` of each frame that RELION summed."""
    numbers = [_number(path, _SHIFT[0], text) for text in _column(path, table, 0)]
    x, y = ([_number(path, _SHIFT[i], text) for text in _column(path, table, i)] for i in (1, 2))
    shifts: dict[int, tuple[float, float]] = {}
    for number, dy, dx in zip(numbers, y, x, strict=True):
        frame = int(number)
        if not 1 <= frame < summed.stop or frame != number:
            raise FormatError(
                f"{path}: frame {number:g} in data_global_shift; allowed: 1 to {summed.stop - 1}; run the motion correction again"
            )
        if frame in shifts:
            raise FormatError(f"{path}: frame {frame} is listed twice; run the motion correction again")
        if NOT_OBSERVED in (dy, dx) or frame not in summed:
            continue
        if not (abs(dy) < shape[0] and abs(dx) < shape[1]):
            raise FormatError(
                f"{path}: frame {frame} is shifted by {dx:g}, {dy:g} (x, y); allowed: shifts within the frame of "
                f"{shape[1]} x {shape[0]}; run the motion correction again"
            )
        shifts[frame] = dy, dx
    if not numbers:
        raise FormatError(f"{path}: data_global_shift lists no frame; run the motion correction again")
    return shifts


def _binning(path: Path, fields: dict[str, str]) -> float:
    text = fields.get(_BINNING, "1")
    value = _number(path, _BINNING, text)
    if not 1 <= value <= _MOST_BINNING:
        raise FormatError(
            f"{path}: {_BINNING} is {text[:40]!r}; allowed: 1 to {_MOST_BINNING}; run the motion correction again"
        )
    return value


_SHIFT = ("rlnMicrographFrameNumber", "rlnMicrographShiftX", "rlnMicrographShiftY")


def _column(path: Path, table: StarBlock, index: int) -> list[str]:
    if _SHIFT[index] not in table.columns:
        raise FormatError(
            f"{path}: data_global_shift has no column {_SHIFT[index]}: it was cut; run the motion correction again"
        )
    return table.column(_SHIFT[index])


def _hot_pixels(path: Path, table: StarBlock | None, shape: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    if table is None or not {"rlnCoordinateX", "rlnCoordinateY"} <= set(table.columns):
        return ()
    x, y = ([int(_number(path, name, text)) for text in table.column(name)] for name in _COORDINATES)
    return tuple((j, i) for j, i in zip(y, x, strict=True) if 0 <= j < shape[0] and 0 <= i < shape[1])


_COORDINATES = ("rlnCoordinateX", "rlnCoordinateY")


def _whole(path: Path, fields: dict[str, str], name: str) -> int:
    text = fields.get(name, "")
    if not text.isdecimal() or not 1 <= int(text[:12]) < 1 << 31:
        raise FormatError(f"{path}: {name} is {text[:40]!r}; allowed: a positive whole number")
    return int(text)


def _number(path: Path, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise FormatError(f"{path}: {name} is {text[:40]!r}; allowed: a number")
    return value
