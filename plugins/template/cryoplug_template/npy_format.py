"""The format ``npy``: a two-dimensional NumPy array as a micrograph; pickled objects are refused."""

from __future__ import annotations

import tokenize
from pathlib import Path

import numpy as np
from cryoplug.core.micrograph import ImageF32, MicrographSource
from cryoplug.core.results import Finding
from cryoplug.core.statistics import scan_pixels
from cryoplug.errors import CryoplugError, FormatError
from cryoplug.formats.registry import FormatSpec
from cryoplug.formats.validation import pixel_findings
from numpy.lib import format as npy

MAGIC = b"\x93NUMPY"


class NpyMicrograph(MicrographSource):
    """A ``.npy`` file that is open for reading; it knows no pixel size."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pixel_size_angstrom = None
        try:
            with open(path, "rb") as stream:
                if npy.read_magic(stream) != (1, 0):  # the others may claim gigabytes of header
                    raise ValueError("another version than numpy.save writes for a plain array")
                shape, fortran_order, self.dtype = npy.read_array_header_1_0(stream)
                self._data_offset = stream.tell()
        except (ValueError, SyntaxError, tokenize.TokenError) as error:  # what NumPy's parser raises on damaged headers
            reason = " ".join(str(error).split())
            raise FormatError(f"{path}: not a .npy file ({reason:.200}); save it again with numpy.save") from error
        if len(shape) != 2 or min(shape) < 1 or fortran_order or self.dtype.kind not in "iuf":
            found = f"shape {shape}, {self.dtype}, {'Fortran' if fortran_order else 'C'} order"
            raise FormatError(f"{path}: {found} (allowed: (y, x), integer or real, C order); save it so")
        self.shape = (int(shape[0]), int(shape[1]))
        expected = self._data_offset + self.shape[0] * self.shape[1] * self.dtype.itemsize
        if path.stat().st_size < expected:
            raise FormatError(f"{path}: {path.stat().st_size} bytes, its header needs {expected}; copy it again")

    def read_rows(self, start: int, stop: int) -> ImageF32:
        """Read the rows ``start`` to ``stop - 1`` as float32."""
        self.check_rows(start, stop)
        width = self.shape[1]
        offset = self._data_offset + start * width * self.dtype.itemsize
        rows = np.fromfile(self.path, self.dtype, count=(stop - start) * width, offset=offset)
        if rows.size != (stop - start) * width:
            raise FormatError(f"{self.path}: it changed while it was read; try again when its writer is done")
        return rows.reshape(stop - start, width).astype(np.float32)

    def close(self) -> None:
        """Do nothing: every read opens the file anew."""


def validate(path: Path) -> list[Finding]:
    """List everything that is wrong with a ``.npy`` file."""
    try:
        with NpyMicrograph(path) as source:
            return [Finding("note", "pixel size", "a .npy file has none"), *pixel_findings(scan_pixels(source))]
    except CryoplugError as error:
        return [Finding("error", "file", str(error).removeprefix(f"{path}: "))]


NPY = FormatSpec(
    id="npy",
    description="NumPy array (y, x)",
    extensions=(".npy",),
    open=NpyMicrograph,
    validate=validate,
    sniff=lambda head: head.startswith(MAGIC),
)
