"""A micrograph that is open for reading, band of rows by band of rows."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cryoplug.errors import ShapeError

if TYPE_CHECKING:
    from typing_extensions import Self

ImageF32 = npt.NDArray[np.float32]

BAND_PIXELS = 1 << 20
"""Pixels of a band unless the caller chooses: 4 MB, however wide the micrograph is."""


class MicrographSource(abc.ABC):
    """An opened micrograph; every file format gives one.

    Rows are read on demand, so that a micrograph of any size passes through bounded memory. Use it from one thread at a
    time, and as a context manager.
    """

    path: Path
    """The file, as the user named it."""
    shape: tuple[int, int]
    """``(y, x)`` in pixels; both at least 1."""
    dtype: np.dtype
    """Type of a pixel on disk; `read_rows` always gives float32."""
    pixel_size_angstrom: float | None
    """Sampling from the file's header; None when the header leaves it unset."""
    warnings: tuple[str, ...] = ()
    """What was odd in the header, yet accepted; one sentence each."""

    @abc.abstractmethod
    def read_rows(self, start: int, stop: int) -> ImageF32:
        """Read the rows ``start`` to ``stop - 1`` in full width.

        Parameters
        ----------
        start, stop
            ``0 <= start <= stop <= shape[0]``.

        Returns
        -------
        ImageF32
            New array ``(stop - start, x)``, C-contiguous, native byte order, grey scale of the file.

        Raises
        ------
        ShapeError
            The rows lie outside the image.
        FormatError
            The file became shorter since it was opened.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Give the file back; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def check_rows(self, start: int, stop: int) -> None:
        """Raise `ShapeError` unless ``start`` to ``stop - 1`` are rows of this image."""
        if not 0 <= start <= stop <= self.shape[0]:
            raise ShapeError(
                f"{self.path}: rows {start} to {stop} were asked for; the image has rows 0 to {self.shape[0]}"
            )


class ArrayMicrograph(MicrographSource):
    """An image in memory, read like a file.

    Parameters
    ----------
    pixels
        ``(y, x)``, any real type; not copied.
    path
        Name used in messages.
    pixel_size_angstrom
        Sampling, if known.
    """

    def __init__(
        self, pixels: np.ndarray, path: Path = Path("<array>"), *, pixel_size_angstrom: float | None = None
    ) -> None:
        if pixels.ndim != 2 or 0 in pixels.shape:
            raise ShapeError(f"{path}: shape {pixels.shape}; a micrograph is (y, x) with at least one pixel")
        self._pixels = pixels
        self.path = path
        self.shape = (int(pixels.shape[0]), int(pixels.shape[1]))
        self.dtype = pixels.dtype
        self.pixel_size_angstrom = pixel_size_angstrom

    def read_rows(self, start: int, stop: int) -> ImageF32:
        """Copy rows out of the array."""
        self.check_rows(start, stop)
        return np.array(self._pixels[start:stop], dtype=np.float32, order="C")

    def close(self) -> None:
        """Do nothing: there is no file."""


def row_bands(source: MicrographSource, *, band_rows: int | None = None) -> Iterator[tuple[int, ImageF32]]:
    """Read a micrograph from top to bottom.

    Parameters
    ----------
    source
        The opened micrograph.
    band_rows
        Height of a band, the last one may be lower; None takes 16 to 256 rows, so that wide micrographs need no more memory.

    Yields
    ------
    tuple[int, ImageF32]
        First row of the band, and its pixels.
    """
    height = source.shape[0]
    if band_rows is None:
        band_rows = min(256, max(16, BAND_PIXELS // source.shape[1]))
    for start in range(0, height, band_rows):
        yield start, source.read_rows(start, min(start + band_rows, height))
