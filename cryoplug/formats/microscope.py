"""Files of microscope software, DigitalMicrograph (DM3, DM4) and TIA (SER), through ncempy.

``pip install 'cryoplug[dm]'`` brings ncempy. The first row of a DM file is the upper one, so the rows are turned to the order
of an MRC, as IMOD (dm2mrc) and EMAN2 turn them. TIA stores the lowest row first, as an MRC has it; EMAN2 keeps that
order, ncempy turns it, and here it is turned back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cryoplug.core.micrograph import ImageF32, MicrographSource, MovieSource, only_frame
from cryoplug.core.results import Finding
from cryoplug.core.statistics import scan_pixels
from cryoplug.disk.opening import read_errors
from cryoplug.errors import FormatError
from cryoplug.formats.mrc_header import MAX_SIDE_PX
from cryoplug.formats.validation import Measure, validate_by_reading

_ANGSTROM_PER_NAME = {"pm": 0.01, "a": 1.0, "\u00c5": 1.0, "nm": 10.0, "um": 1e4, "\u00b5m": 1e4, "\u03bcm": 1e4}
MAX_SER_DIMENSIONS = 8
_DECODING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""Errors that ncempy raises on damaged files; they have no common class."""


def sniff_dm(head: bytes) -> bool:
    """Say whether bytes are the start of a DM3 or DM4 file: the version, and the byte order of its tags."""
    if len(head) < 16:
        return False
    version = int.from_bytes(head[:4], "big")
    order = head[8:12] if version == 3 else head[12:16]
    return version in (3, 4) and order in (b"\0\0\0\0", b"\0\0\0\1")


def sniff_ser(head: bytes) -> bool:
    """Say whether bytes are the start of a SER file: byte order, and the number of the series format."""
    return head.startswith(b"II\x97\x01")


def open_dm(path: Path) -> MicrographSource:
    """Open a DM3 or DM4 file with one image."""
    return only_frame(DmMovie(path))


def open_ser(path: Path) -> MicrographSource:
    """Open a SER file with one image."""
    return only_frame(SerMovie(path))


def validate_dm(path: Path, measure: Measure = scan_pixels) -> list[Finding]:
    """List everything that is wrong or unusual about a DM3 or DM4 file."""
    return validate_by_reading(path, DmMovie, measure)


def validate_ser(path: Path, measure: Measure = scan_pixels) -> list[Finding]:
    """List everything that is wrong or unusual about a SER file."""
    return validate_by_reading(path, SerMovie, measure)


class DmMovie(MovieSource):
    """An opened DM3 or DM4 file: an image, or a series of them.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    FormatError
        ncempy is not installed, or the file is damaged, or holds a spectrum or four dimensions.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None
        try:
            from ncempy.io.dm import fileDM
        except ImportError as error:
            raise _not_installed(path) from error
        try:
            with _decoding(path):
                self._file = fileDM(path, on_memory=False)
                self._file.parseHeader()
                place = 0 if self._file.numObjects == 1 else 1  # before the image lies a small picture of it
                sides = int(self._file.ySize[place]), int(self._file.xSize[place])
                frames, more = int(self._file.zSize[place]), int(self._file.zSize2[place])
                pixel_bytes = int(self._file.dataSize[place]) // max(1, sides[0] * sides[1] * frames)
                end = int(self._file.dataOffset[place]) + int(self._file.dataSize[place])
                _check_size(path, sides, frames, more, pixel_bytes)
                if end > path.stat().st_size:
                    raise FormatError(
                        f"{path}: its image ends at byte {end}, but the file has {path.stat().st_size}: it is truncated; "
                        "copy or export it again"
                    )
                slice_ = self._file.getSlice(0, 0)
                self.dtype = _grey(path, slice_["data"])
                names, sizes = slice_["pixelUnit"], slice_["pixelSize"]
        except BaseException:
            self.close()
            raise
        self.frame_shape, self.frame_count = sides, frames
        self.pixel_size_angstrom = _in_angstrom(float(sizes[-1]), str(names[-1])) if len(sizes) and len(names) else None

    def read_frame(self, index: int) -> ImageF32:
        """Read one image of the series."""
        self.check_frame(index)
        with _decoding(self.path):
            return np.array(self._file.getSlice(0, index)["data"][::-1], dtype=np.float32, order="C")

    def close(self) -> None:
        """Close the file."""
        stream = getattr(self._file, "fid", None)
        if stream is not None:
            stream.close()


class SerMovie(MovieSource):
    """An opened SER file: an image, or a series of them.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    FormatError
        ncempy is not installed, or the file is damaged, or holds spectra.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None
        try:
            from ncempy.io.ser import NotSERError, fileSER
        except ImportError as error:
            raise _not_installed(path) from error
        try:
            with _decoding(path, NotSERError):
                _check_ser_counts(path)
                self._file = fileSER(path)
                frames = int(self._file.head["ValidNumberElements"])
                if frames < 1 or self._file.head["DataTypeID"] != 0x4122:
                    raise FormatError(f"{path}: holds no image ({frames} elements, maybe spectra); leave it out")
                pixels, tags = self._dataset(0)
                self.dtype = _grey(path, pixels)
                sides = int(pixels.shape[0]), int(pixels.shape[1])
                _check_size(path, sides, frames, 1, pixels.dtype.itemsize)
                size = float(tags["Calibration"][0]["CalibrationDelta"]) * 1e10
        except BaseException:
            self.close()
            raise
        self.frame_shape, self.frame_count = sides, frames
        self.pixel_size_angstrom = size if 1e-3 < size < 1e4 else None

    def read_frame(self, index: int) -> ImageF32:
        """Read one image of the series."""
        self.check_frame(index)
        with _decoding(self.path):
            pixels = np.array(self._dataset(index)[0][::-1], dtype=np.float32, order="C")
        if pixels.shape != self.frame_shape:
            raise FormatError(
                f"{self.path}: image {index + 1} has {pixels.shape}, the first {self.frame_shape}; export them one by one"
            )
        return pixels

    def close(self) -> None:
        """Close the file."""
        stream = getattr(self._file, "_file_hdl", None)
        if stream is not None:
            stream.close()

    def _dataset(self, index: int) -> Any:
        # As for _check_ser_counts: two calibrations of 20 bytes and the type of a pixel, then the sides.
        stream = self._file._file_hdl
        stream.seek(self._file.head["DataOffsetArray"][index] + 2 * 20 + 2)
        width, height = struct.unpack("<ii", stream.read(8))
        if min(width, height) < 1 or width * height > self.path.stat().st_size:
            raise ValueError(f"image {index + 1} of {width} x {height} pixels is more than the file holds")
        return self._file.getDataset(index)


def _check_ser_counts(path: Path) -> None:
    """Raise an error if the header of a SER file claims more than the file can hold, because ncempy allocates it unchecked."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        version, elements = struct.unpack("<4xH12xi", stream.read(22))
        stream.seek(26 if version == 0x0210 else 30)
        (dimensions,) = struct.unpack("<i", stream.read(4))
        counts = [elements, dimensions]
        while len(counts) < 2 + 2 * min(dimensions, MAX_SER_DIMENSIONS):
            for skipped in (24, 0):  # size and calibration come before the length of the description, then the units
                (length,) = struct.unpack(f"<{skipped}xi", stream.read(skipped + 4))
                counts.append(length)
                stream.seek(max(0, length), os.SEEK_CUR)
    if min(counts) < 0 or max(counts) > size or dimensions > MAX_SER_DIMENSIONS:
        raise ValueError(f"its header counts {counts} elements, dimensions and letters in {size} bytes")


def _grey(path: Path, pixels: np.ndarray) -> np.dtype:
    if pixels.ndim != 2 or pixels.dtype.kind not in "uif":
        raise FormatError(
            f"{path}: image of shape {pixels.shape} and type {pixels.dtype}; allowed: (y, x) of integers or floats"
        )
    return pixels.dtype


def _check_size(path: Path, sides: tuple[int, int], frames: int, more: int, pixel_bytes: int) -> None:
    if more > 1 or frames < 1 or pixel_bytes < 1 or not all(1 <= side <= MAX_SIDE_PX for side in sides):
        raise FormatError(
            f"{path}: {more} x {frames} images of {sides} (y, x); allowed: one series of images up to {MAX_SIDE_PX} "
            "pixels a side"
        )


def _in_angstrom(size: float, unit: str) -> float | None:
    found = size * _ANGSTROM_PER_NAME.get(unit.strip().lower(), 0.0)
    return found if 1e-3 < found < 1e4 else None


def _not_installed(path: Path) -> FormatError:
    return FormatError(f"{path}: a file of microscope software; to read it: pip install 'cryoplug[dm]'")


@contextlib.contextmanager
def _decoding(path: Path, *more: type[Exception]) -> Iterator[None]:
    damage: tuple[type[Exception], ...] = (*_DECODING_ERRORS, *more)
    with read_errors(path):
        try:
            yield
        except FormatError:
            raise
        except damage as error:
            what = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise FormatError(f"{path}: damaged, or not in the format that its first bytes say ({what})") from error
        except OSError as error:
            if error.errno not in (None, errno.EINVAL):  # EINVAL: a place before the start of the file
                raise
            raise FormatError(f"{path}: damaged, or not in the format that its first bytes say ({error})") from error
