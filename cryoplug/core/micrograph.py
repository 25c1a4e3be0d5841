"""An opened micrograph, read in bands of rows, and an opened movie, read frame by frame."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cryoplug.errors import PixelError, SeveralImagesError, ShapeError

if TYPE_CHECKING:
    from typing import Self

ImageF32 = npt.NDArray[np.float32]

BAND_PIXELS = 1 << 18
"""Pixels of a band unless the caller chooses: 1 MB, however wide the micrograph is. Computations on it then stay in the
processor's cache: statistics of 4096x4096 take 30 ms, and 47 ms in bands of 4 MB (one core)."""


class MicrographSource(abc.ABC):
    """An opened micrograph; every file format gives one.

    Row 0 is the first row that an MRC file of the micrograph has: RELION, IMOD and EMAN2 agree on that order. A reader of
    a format that begins with the upper row (TIFF, DM) turns the image. Rows are read on demand, so that a micrograph of
    any size passes through bounded memory. Use it from one thread at a time, and as a context manager.
    """

    path: Path
    """The file, as the user named it."""
    shape: tuple[int, int]
    """``(y, x)`` in pixels; both at least 1."""
    dtype: np.dtype
    """Type of a pixel on disk; `read_rows` always gives float32."""
    pixel_size_angstrom: float | None
    """Pixel size in angstrom from the file's header; None if it is unset there."""
    warnings: tuple[str, ...] = ()
    """Oddities of the header that were accepted; one sentence each."""

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

    @property
    def stored_dtype(self) -> np.dtype | None:
        """Type and byte order of the pixels that `read_stored` gives; None if the format has only `read_rows`."""
        return None

    def read_stored(self, start: int, stop: int, into: memoryview) -> None:
        """Read the bytes of rows as they lie in the file, so that a GPU can convert them.

        Parameters
        ----------
        start, stop
            As for `read_rows`.
        into
            Writable bytes; the first ``(stop - start) * x * stored_dtype.itemsize`` are filled.
        """
        raise NotImplementedError(f"{self.path}: this format has no stored_dtype; use read_rows")

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
        if pixels.dtype.kind not in "buif":
            raise PixelError(
                f"{path}: pixels of type {pixels.dtype}; a micrograph has real numbers (float, int, uint, bool)"
            )
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


class MovieSource(abc.ABC):
    """An opened movie or stack: frames of one shape, read one at a time.

    A file of a single image is a movie of one frame. Use it from one thread at a time, and as a context manager.
    """

    path: Path
    """The file, as the user named it."""
    frame_shape: tuple[int, int]
    """``(y, x)`` of every frame in pixels."""
    frame_count: int
    """Frames; at least 1."""
    dtype: np.dtype
    """Type of a pixel on disk; `read_frame` always gives float32."""
    pixel_size_angstrom: float | None
    """Sampling from the file; None where it is unset."""
    warnings: tuple[str, ...] = ()
    """Oddities that were accepted; one sentence each."""
    notes: tuple[str, ...] = ()
    """Facts that are normal but good to know; one sentence each."""
    is_stream: bool = False
    """Whether reading a frame needs all frames before it, as in a compressed stream."""

    @abc.abstractmethod
    def read_frame(self, index: int) -> ImageF32:
        """Read one frame.

        Parameters
        ----------
        index
            From 0 to ``frame_count - 1``.

        Returns
        -------
        ImageF32
            New array of `frame_shape`, rows in the order of an MRC file.

        Raises
        ------
        ShapeError
            There is no such frame.
        FormatError
            It cannot be decoded, or the file became shorter since it was opened.
        """

    def read_frames(self, start: int, stop: int) -> ImageF32:
        """Read the frames ``start`` to ``stop - 1``, counted from 0: ``(n, y, x)``, a new array."""
        self.check_frames(start, stop)
        return np.stack([self.read_frame(index) for index in range(start, stop)])

    @abc.abstractmethod
    def close(self) -> None:
        """Give the file back; a second call does nothing."""

    def check_end(self) -> list[str]:
        """List what is wrong after the last frame, once that was read; one sentence each."""
        return []

    def frame(self, index: int) -> MicrographSource:
        """Give one frame as a micrograph; closing it closes the movie."""
        return MovieFrame(self, index)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def check_frame(self, index: int) -> None:
        """Raise `ShapeError` unless there is a frame `index`."""
        if not 0 <= index < self.frame_count:
            raise ShapeError(
                f"{self.path}: section {index + 1} was asked for; allowed: 1 to {self.frame_count} (counted from 1)"
            )

    def check_frames(self, start: int, stop: int) -> None:
        """Raise `ShapeError` unless ``start`` to ``stop - 1`` are frames, at least one."""
        self.check_frame(start)
        self.check_frame(max(start, stop - 1))


class MovieFrame(MicrographSource):
    """One frame of a movie as a micrograph; it is decoded when its first rows are read, and stays in memory.

    Parameters
    ----------
    movie
        The opened movie; closed together with this frame.
    index
        Frame, counted from 0.
    """

    def __init__(self, movie: MovieSource, index: int) -> None:
        movie.check_frame(index)
        self._movie = movie
        self._index = index
        self._pixels: ImageF32 | None = None
        self.path = movie.path
        self.shape = movie.frame_shape
        self.dtype = movie.dtype
        self.pixel_size_angstrom = movie.pixel_size_angstrom
        self.warnings = movie.warnings

    def read_rows(self, start: int, stop: int) -> ImageF32:
        """Copy rows out of the decoded frame."""
        self.check_rows(start, stop)
        if self._pixels is None:
            self._pixels = self._movie.read_frame(self._index)
        return self._pixels[start:stop].copy()

    def close(self) -> None:
        """Close the movie."""
        self._pixels = None
        self._movie.close()


def only_frame(movie: MovieSource) -> MicrographSource:
    """Give the only frame of a file that must hold a single image; if it has more, close it and raise `FormatError`."""
    try:
        check_single(movie.path, movie.frame_count)
        return movie.frame(0)
    except BaseException:
        movie.close()
        raise


def check_single(path: Path, sections: int) -> None:
    """Raise `SeveralImagesError` if a file that should be one micrograph has several sections."""
    if sections != 1:
        raise SeveralImagesError(
            f"{path}: {sections} sections: a stack, movie or volume, where a single micrograph is needed; "
            f"name one of them as 000001@{path.name}, here or in a STAR file"
        )


def row_bands(source: MicrographSource, *, band_rows: int | None = None) -> Iterator[tuple[int, ImageF32]]:
    """Read a micrograph from top to bottom.

    Parameters
    ----------
    source
        The opened micrograph.
    band_rows
        Height of a band; the last one may have fewer rows. None takes 4 to 256 rows, so that wide micrographs need no more
        memory.

    Yields
    ------
    tuple[int, ImageF32]
        First row of the band, and its pixels.
    """
    height = source.shape[0]
    if band_rows is None:
        band_rows = min(256, max(4, BAND_PIXELS // source.shape[1]))
    for start in range(0, height, band_rows):
        yield start, source.read_rows(start, min(start + band_rows, height))
