"""Decide whether a file of several images is a movie, a tilt series, a stack (such as particles), or a volume.

Nothing in an MRC file says it for certain. So several hints decide together: the ending, tilt angles in the microscope's
extended header, a ``.mdoc`` or ``.rawtlt`` beside the file, the space group, and the type of the pixels.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cryoplug.formats import registry
from cryoplug.formats.mrc_extended import tilt_angles
from cryoplug.formats.mrc_header import MrcHeader

Kind = Literal["image", "movie", "tilt series", "stack", "volume"]
VOLUME_ADVICE = (
    "volumes are not denoised here; for tomograms there are cryoCARE, IsoNet, DeepDeWedge and topaz denoise3d. If it is a "
    "stack of images, give it the ending .mrcs (a link will do)"
)
"""Advice for a volume."""
MOVIE_ADVICE = (
    "denoise its sum, or make halves of it with `cryoplug convert --pairs halves`. If it is a stack of images, name its "
    "sections in a STAR file (000001@...)"
)
"""Advice for a movie."""
TILT_SERIES_ENDINGS = (".st", ".ali")
"""IMOD's endings of raw and of aligned tilt series."""
VOLUME_ENDINGS = (".rec", ".map", ".ccp4")
_PACKED = re.compile(r"\.(?:gz|bz2|xz|zst)$", re.IGNORECASE)
_VOLUME_NAME = re.compile(r"(?:^|[_.-])(?:rec|vol|tomo|tomogram)(?:[_.-]|\d*$)", re.IGNORECASE)
_BESIDE = (".mdoc", ".rawtlt", ".tlt")
_MOST_MDOC_BYTES = 1 << 20
_TILT_ANGLE = re.compile(rb"^\s*TiltAngle\s*=\s*(-?\d+(?:\.\d+)?)", re.MULTILINE)
_LEAST_SPREAD_DEGREES = 1.0
"""Least range of the tilt angles of a series; those of a movie's frames differ only by the readout of the stage."""
_MOVIE_MODES = {0: "bytes", 101: "4-bit integers"}
_INTEGER_MODES = {1: "int16", 6: "uint16"}
_DETECTOR_PX = 1024
"""Integers in images of at least this side are counts of a detector; particles are smaller."""


@dataclass(frozen=True)
class StackLook:
    """The contents of a file, as far as they can be known without reading pixels."""

    path: Path
    """The file."""
    kind: Kind
    """Kind of contents. ``image``: a single image. ``stack``: separate images of one size."""
    sections: int
    """Number of images."""
    shape: tuple[int, int]
    """``(y, x)`` of each image."""
    why: str
    """How the kind is known: the end of a sentence that begins with ``it is a ... because``."""
    is_sure: bool = True
    """False if the kind may be wrong: a program may have given a stack the space group of a volume."""


def look_at_stack(path: Path) -> StackLook:
    """Open a file and decide what it holds; errors are those of `cryoplug.formats.registry.open_movie`."""
    with registry.open_movie(path) as movie:
        sections, shape = movie.frame_count, movie.frame_shape
        header = getattr(movie, "header", None)
    if sections == 1:
        return StackLook(path, "image", 1, shape, "it has one section")
    if not isinstance(header, MrcHeader):
        return StackLook(path, "movie", sections, shape, f"it has {sections} frames")
    kind, why, is_sure = _kind_of(path, header)
    return StackLook(path, kind, sections, shape, why, is_sure)


def _kind_of(path: Path, header: MrcHeader) -> tuple[Kind, str, bool]:
    name = _PACKED.sub("", path.name.lower())
    if why := _tilt_series(path, header):
        return "tilt series", why, True
    if name.endswith(VOLUME_ENDINGS):
        return "volume", f"files that end in {name[name.rindex('.') :]} are", True
    space_group, sampled = int(header.record["ispg"]), int(header.record["mz"])
    if not name.endswith(".mrcs"):
        stem = path.name.split(".")[0]
        if _VOLUME_NAME.search(stem) and header.mode not in _MOVIE_MODES:
            return "volume", f"its name ({path.name}) says so", True
        if 2 <= space_group <= 230:
            return "volume", f"its header says so (ISPG {space_group}, a crystal)", True
        if space_group == 1 and sampled == header.nz:
            return "volume", f"its header says so (ISPG {space_group}, MZ {sampled})", False
    if header.mode in _MOVIE_MODES:
        return "movie", f"its pixels are {_MOVIE_MODES[header.mode]}, which detectors count in", True
    if header.mode in _INTEGER_MODES and min(header.ny, header.nx) >= _DETECTOR_PX:
        return "movie", f"its pixels are {_INTEGER_MODES[header.mode]} on a detector of {header.nx}x{header.ny}", False
    return "stack", f"it has {header.nz} sections of {header.nx}x{header.ny} pixels", True


def _tilt_series(path: Path, header: MrcHeader) -> str:
    """Say why a file is a tilt series; empty if nothing shows it."""
    angles = tilt_angles(header)
    if _spread(angles):
        return f"its extended header has tilt angles from {min(angles):g} to {max(angles):g} degrees"
    if angles:
        return ""  # one for all: frames of an exposure
    unpacked = path.with_name(_PACKED.sub("", path.name))
    for beside in _BESIDE:
        for other in (
            path.with_name(path.name + beside),
            unpacked.with_name(unpacked.name + beside),
            unpacked.with_suffix(beside),
        ):
            found = _angles_of(other)
            if len(found) == header.nz and _spread(found):
                return f"{other.name} beside it has tilt angles from {min(found):g} to {max(found):g} degrees"
    if path.name.lower().endswith(TILT_SERIES_ENDINGS):
        return f"files that end in {path.suffix} are"
    if bytes(header.record["exttyp"]) == b"SERI":
        return "its extended header is SerialEM's (SERI), which writes one for tilt series"
    return ""


def _spread(angles: list[float]) -> bool:
    return len(angles) > 1 and max(angles) - min(angles) > _LEAST_SPREAD_DEGREES


def _angles_of(path: Path) -> list[float]:
    """Read the tilt angles of an ``.mdoc``, or of a list with one angle a line; empty if there is no such file."""
    try:
        if not os.path.isfile(path) or path.stat().st_size > _MOST_MDOC_BYTES:  # noqa: PTH113
            return []
        content = path.read_bytes()
    except OSError:
        return []
    if path.suffix.lower() == ".mdoc":
        return [float(text) for text in _TILT_ANGLE.findall(content)]
    try:
        return [value for value in map(float, content.split()) if np.isfinite(value)]
    except ValueError:
        return []
