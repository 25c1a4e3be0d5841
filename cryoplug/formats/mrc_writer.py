"""Write float32 or float16 MRC files row by row, with the header of the source micrograph."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

import cryoplug
from cryoplug.core.statistics import RunningMoments
from cryoplug.disk.atomic import atomic_file, storage_errors
from cryoplug.errors import PixelError, ShapeError, UsageError
from cryoplug.formats.mrc_claims import pixel_size
from cryoplug.formats.mrc_header import MrcHeader

_WRITTEN_DTYPE = HEADER_DTYPE.newbyteorder("<")
_LABELS = 10
_LABEL_BYTES = 80
_BAND_ROWS = 256
_SHIFTED_BYTES = 4 << 20
_MODES = {"float32": 2, "float16": 12}
FLOAT16_LIMIT = 65504.0
"""Largest value of float16."""


@dataclass(frozen=True)
class StoredStatistics:
    """Statistics in a header about the pixels that follow it, in grey values."""

    minimum: float
    """Smallest pixel."""
    maximum: float
    """Largest pixel."""
    mean: float
    """Mean of the pixels."""
    std: float
    """Standard deviation, division by n; MRC calls it rms."""


def write_mrc(
    path: str | Path,
    pixels: np.ndarray,
    *,
    pixel_size_angstrom: float | None = None,
    label: str = "",
    template: MrcHeader | None = None,
    dtype: str = "float32",
) -> None:
    """Write one image as MRC; the name `path` appears only when the file is complete.

    Parameters
    ----------
    path
        Path of the file; an existing file is replaced.
    pixels
        Pixels ``(y, x)``, any real type.
    pixel_size_angstrom
        Pixel size in angstrom; None keeps that of the template, or leaves it unset.
    label
        Text of the added label: at most 80 ASCII characters, begins with ``cryoplug``.
    template
        Header and extended header to carry over.
    dtype
        ``float32`` (mode 2) or ``float16`` (mode 12).

    Raises
    ------
    ShapeError
        Not two-dimensional, or empty.
    PixelError
        A pixel is beyond the range of float16.
    StorageError
        The file cannot be written; nothing is left.
    """
    path = Path(path)
    if pixels.ndim != 2:
        raise ShapeError(f"{path}: pixels of shape {pixels.shape}; a micrograph is (y, x)")
    with atomic_file(path) as stream, storage_errors(path):
        writer = MrcRowWriter(
            stream,
            pixels.shape,
            template=template,
            pixel_size_angstrom=pixel_size_angstrom,
            label=label,
            path=path,
            dtype=dtype,
        )
        for start in range(0, pixels.shape[0], _BAND_ROWS):
            writer.write_rows(pixels[start : start + _BAND_ROWS])
        writer.finish()


class MrcRowWriter:
    """Write an image whose rows arrive one band after another, from top to bottom.

    The file is mode 2 or 12, little-endian. Fields of the template that stay valid are kept: cell, origins, labels, vendor
    fields, and the extended header byte for byte. Statistics are computed from the stored pixels; one label is added.

    Parameters
    ----------
    stream
        Seekable, at its start, empty; see `cryoplug.disk.atomic.atomic_file`. It is not closed.
    shape
        ``(y, x)`` of the image.
    template
        Header to carry over, from `cryoplug.formats.mrc.read_header`.
    pixel_size_angstrom
        Pixel size in angstrom; None keeps that of the template, or leaves it unset.
    label
        Text of the added label; ``cryoplug`` is put before it unless it begins with it.
    path
        Final name of the file, for messages.
    dtype
        ``float32`` or ``float16``.
    sections
        Number of images of a stack. If the template has as many sections, its cell and space group are kept.
    """

    def __init__(
        self,
        stream: BinaryIO,
        shape: tuple[int, ...],
        *,
        template: MrcHeader | None = None,
        pixel_size_angstrom: float | None = None,
        label: str = "",
        path: Path | None = None,
        dtype: str = "float32",
        sections: int = 1,
    ) -> None:
        self._path = path or Path(str(getattr(stream, "name", "output")))
        self._header = _new_header(
            shape,
            template=template,
            pixel_size_angstrom=pixel_size_angstrom,
            label=label,
            path=self._path,
            dtype=dtype,
            sections=sections,
        )
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._rounding_squares = 0.0
        self._stream = stream
        self._shape = (int(shape[0]) * sections, int(shape[1]))
        self._rows_done = 0
        self._moments = RunningMoments()
        self._all_finite = True
        head = self._header.tobytes() + (template.extended_header if template else b"")
        self._first_pixel = len(head)
        self._put(head)

    def write_rows(self, rows: np.ndarray) -> None:
        """Append rows.

        Parameters
        ----------
        rows
            ``(n, x)``; converted to the type of the file.

        Raises
        ------
        PixelError
            A pixel is beyond the range of float16.
        """
        height, width = self._shape
        if rows.ndim != 2 or rows.shape[1] != width or self._rows_done + rows.shape[0] > height:
            raise ShapeError(
                f"{self._path}: rows of shape {rows.shape} after {self._rows_done} rows; the image is {self._shape}"
            )
        self._append(rows)

    def _append(self, rows: np.ndarray) -> None:
        stored = self._converted(rows)
        if self._all_finite and not np.isfinite(stored).all():
            self._all_finite = False
        if self._all_finite:
            self._moments.add(stored)
        if stored.size:
            self._put(stored.reshape(-1).view(np.uint8).data)
        self._rows_done += rows.shape[0]

    def finish(self) -> None:
        """Check that all rows were written, and write the header again, now with the statistics."""
        if self._rows_done != self._shape[0]:
            raise ShapeError(f"{self._path}: {self._rows_done} of {self._shape[0]} rows were written; write the rest")
        moments = self._moments
        found = StoredStatistics(moments.minimum, moments.maximum, moments.mean, moments.std)
        _set_statistics(self._header, found if self._all_finite else None)
        with storage_errors(self._path):
            self._stream.seek(0)
            self._stream.write(self._header.tobytes())
            self._stream.seek(0, 2)

    def shift(self, offset: float) -> None:
        """Add a number to all pixels written so far; they are read and written again in place.

        Raises
        ------
        PixelError
            A pixel would be beyond the range of float16.
        """
        width, first = self._shape[1], self._first_pixel
        rows = max(1, _SHIFTED_BYTES // (width * self._dtype.itemsize))
        done, self._rows_done = self._rows_done, 0
        self._moments, self._all_finite, before = RunningMoments(), True, self._rounding_squares
        self._rounding_squares = 0.0
        for start in range(0, done, rows):
            count = min(rows, done - start)
            place = first + start * width * self._dtype.itemsize
            with storage_errors(self._path):
                self._stream.seek(place)
                stored = np.frombuffer(self._stream.read(count * width * self._dtype.itemsize), self._dtype)
                self._stream.seek(place)
            moved = stored.reshape(count, width).astype(np.float32)
            moved += np.float32(offset)
            self._append(moved)
        # Both roundings to float16 are in the pixels now; they are independent.
        self._rounding_squares += before

    @property
    def mean(self) -> float:
        """Mean of the rows so far; NaN if a pixel is not finite."""
        return self._moments.mean if self._all_finite else math.nan

    @property
    def std(self) -> float:
        """Standard deviation of the rows so far; NaN if a pixel is not finite."""
        return self._moments.std if self._all_finite else math.nan

    @property
    def rounding_rms(self) -> float:
        """Root mean square of the rounding of the rows so far to float16; 0 for float32."""
        return math.sqrt(self._rounding_squares / max(1, self._rows_done * self._shape[1]))

    def _converted(self, rows: np.ndarray) -> np.ndarray:
        if self._dtype.itemsize == 4:
            return np.ascontiguousarray(rows, dtype=self._dtype)
        finite = rows[np.isfinite(rows)]
        check_float16_range(float(np.abs(finite).max()) if finite.size else 0.0, "float16", self._path)
        stored = np.ascontiguousarray(rows, dtype=self._dtype)
        rounding = np.subtract(stored, rows, dtype=np.float32).ravel()
        self._rounding_squares += float(np.dot(rounding, rounding))
        return stored

    def _put(self, payload: bytes | memoryview) -> None:
        with storage_errors(self._path):
            self._stream.write(payload)


def check_float16_range(largest: float, dtype: str, path: Path) -> None:
    """Raise `PixelError` if the largest absolute pixel value does not fit into float16."""
    if dtype == "float16" and largest > FLOAT16_LIMIT:
        raise PixelError(
            f"{path}: a pixel of {largest:g} does not fit into float16 (allowed: up to {FLOAT16_LIMIT:g}); "
            "write float32"
        )


def mrc_head(
    shape: tuple[int, int],
    statistics: StoredStatistics | None,
    *,
    path: Path,
    template: MrcHeader | None = None,
    pixel_size_angstrom: float | None = None,
    label: str = "",
    dtype: str = "float32",
) -> bytes:
    """Give all bytes before the pixels, for a file whose pixels are already known.

    Parameters
    ----------
    shape, path, template, pixel_size_angstrom, label, dtype
        As for `MrcRowWriter`.
    statistics
        Statistics of the stored pixels; None if a pixel is not finite.
    """
    header = _new_header(
        shape, template=template, pixel_size_angstrom=pixel_size_angstrom, label=label, path=path, dtype=dtype
    )
    _set_statistics(header, statistics)
    return header.tobytes() + (template.extended_header if template else b"")


def _new_header(
    shape: tuple[int, ...],
    *,
    template: MrcHeader | None,
    pixel_size_angstrom: float | None,
    label: str,
    path: Path,
    dtype: str,
    sections: int = 1,
) -> np.ndarray:
    if len(shape) != 2 or min(shape) < 1:
        raise ShapeError(f"{path}: shape {tuple(shape)}; a micrograph is (y, x) with at least one pixel")
    if pixel_size_angstrom is not None and not (math.isfinite(pixel_size_angstrom) and pixel_size_angstrom > 0):
        raise UsageError(f"{path}: pixel size {pixel_size_angstrom} A; allowed: a number above 0, or None")
    if dtype not in _MODES:
        raise UsageError(f"{path}: pixels as {dtype!r}; allowed: {', '.join(_MODES)}")
    height, width = shape
    header = np.zeros((), _WRITTEN_DTYPE)
    if template is not None:
        header = np.array(template.record, HEADER_DTYPE.newbyteorder("=")).astype(_WRITTEN_DTYPE)
    header["nx"], header["ny"], header["nz"] = width, height, sections
    header["mode"] = _MODES[dtype]
    if template is not None and (template.record["nx"], template.record["ny"]) != (width, height):
        # Another grid over the same area: one sample a pixel, whatever it was before.
        header["mx"], header["my"] = width, height
        header["nxstart"] = header["nystart"] = 0
        known = pixel_size_angstrom or pixel_size(template.record) or 0.0
        header["cella"]["x"], header["cella"]["y"] = known * width, known * height
    if sorted(int(header[name]) for name in ("mapc", "mapr", "maps")) != [1, 2, 3]:
        header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["map"] = b"MAP "
    header["machst"] = np.frombuffer(b"DD\0\0", np.uint8)
    header["nsymbt"] = len(template.extended_header) if template else 0
    # MRC2014 has the type of the extended header and the signed bytes; older declarations would be untrue.
    if int(header["nversion"]) not in (20140, 20141):
        header["nversion"] = 20141
    header["ispg"] = max(int(header["ispg"]), 0)
    _set_cell(header, template, pixel_size_angstrom, sections)
    _add_label(header, label)
    return header


def _set_statistics(header: np.ndarray, statistics: StoredStatistics | None) -> None:
    # The last four are how MRC2014 says "not determined".
    values = (0.0, -1.0, -2.0, -1.0) if statistics is None else dataclasses.astuple(statistics)
    for name, value in zip(("dmin", "dmax", "dmean", "rms"), values, strict=True):
        header[name] = value


def _set_cell(header: np.ndarray, template: MrcHeader | None, pixel_size_angstrom: float | None, sections: int) -> None:
    known = pixel_size(template.record) if template else None
    # Pixels are square here: y follows x where a header gives it another size.
    of_y = pixel_size(template.record, "y") if template else None
    is_uneven = known is not None and of_y is not None and abs(known - of_y) > 1e-3 * known
    sound = {axis for axis in "xyz" if template and pixel_size(template.record, axis) is not None}
    if min(int(header[name]) for name in ("mx", "my")) < 1:
        header["mx"], header["my"] = header["nx"], header["ny"]
    if template is not None and template.nz > 1 and sections == 1:  # one section of a stack
        header["cella"]["z"] = float(header["cella"]["z"]) / max(int(header["mz"]), 1)
        header["mz"] = 1
    header["mz"] = max(int(header["mz"]), 1)
    for axis, samples in (("x", "mx"), ("y", "my"), ("z", "mz")):
        if pixel_size_angstrom is not None and (pixel_size_angstrom != known or is_uneven):
            header["cella"][axis] = pixel_size_angstrom * int(header[samples])
        elif axis not in sound and float(header["cella"][axis]) != 0:
            header["cella"][axis] = 0.0 if known is None else known * int(header[samples])
    for angle in ("alpha", "beta", "gamma"):
        if not 0 < float(header["cellb"][angle]) < 180:
            header["cellb"][angle] = 90.0
    if 401 <= int(header["ispg"]) <= 630 and sections == 1:
        header["mz"] = 1  # a stack of volumes must have a whole number of them in nz = 1


def _add_label(header: np.ndarray, text: str) -> None:
    text = text or cryoplug.__version__
    if not text.startswith("cryoplug"):
        text = f"cryoplug {text}"
    own = text.encode("ascii", "replace").replace(b"\0", b"?")[:_LABEL_BYTES]
    labels = [*list(_filled_labels(header))[: _LABELS - 1], own]
    header["label"] = b""
    header["label"][: len(labels)] = labels
    header["nlabl"] = len(labels)


def _filled_labels(header: np.ndarray) -> Iterator[bytes]:
    for label in header["label"]:
        if bytes(label).strip(b" \0"):
            yield bytes(label)
