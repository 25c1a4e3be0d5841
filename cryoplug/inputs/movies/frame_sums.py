"""Sums of shifted frames: a frame is shifted by turning the phases of its Fourier terms, and summed there."""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np

from cryoplug.core.micrograph import ImageF32

_BLOCK_PIXELS = 1 << 19


class ShiftedSum:
    """Sum of frames, each moved by its own shift.

    Holds the Fourier terms of the sum: one array of a frame's size in float32. `add` needs one more while it runs.

    Parameters
    ----------
    shape
        ``(y, x)`` of every frame.
    pool
        Threads that transform blocks of rows and columns; numpy does that outside the interpreter's lock.
    """

    def __init__(self, shape: tuple[int, int], pool: Executor) -> None:
        self._shape = shape
        self._pool = pool
        self._terms = np.zeros((shape[0], shape[1] // 2 + 1), np.complex64)

    def add(self, frame: ImageF32, shift: tuple[float, float]) -> None:
        """Add a frame whose content is moved by `shift`.

        Parameters
        ----------
        frame
            ``(y, x)``; not changed.
        shift
            ``(y, x)`` in pixels, any real number; positive moves towards higher indices. Content that leaves at one
            border comes in at the opposite one.
        """
        height, width = self._shape
        along_rows = np.empty(self._terms.shape, np.complex64)
        turn_y = _phases(np.fft.fftfreq(height), shift[0])
        turn_x = _phases(np.fft.rfftfreq(width), shift[1])

        def along_x(rows: slice) -> None:
            along_rows[rows] = np.fft.rfft(frame[rows], axis=1)

        def along_y(columns: slice) -> None:
            turned = np.fft.fft(along_rows[:, columns], axis=0).astype(np.complex64, copy=False)
            turned *= turn_y[:, None]
            turned *= turn_x[None, columns]
            self._terms[:, columns] += turned

        list(self._pool.map(along_x, _blocks(height, width)))
        list(self._pool.map(along_y, _blocks(along_rows.shape[1], height)))

    def result(self) -> ImageF32:
        """Give the sum, ``(y, x)``; call it only once, because it consumes the terms."""
        height, width = self._shape
        image = np.empty(self._shape, np.float32)
        terms = self._terms

        def along_y(columns: slice) -> None:
            terms[:, columns] = np.fft.ifft(terms[:, columns], axis=0)

        def along_x(rows: slice) -> None:
            image[rows] = np.fft.irfft(terms[rows], n=width, axis=1)

        list(self._pool.map(along_y, _blocks(terms.shape[1], height)))
        list(self._pool.map(along_x, _blocks(height, width)))
        del self._terms
        return image


def _phases(frequencies: np.ndarray, shift: float) -> np.ndarray:
    turn = np.exp(-2j * np.pi * shift * frequencies)
    # At Nyquist both directions share one term: without this a shift up would not mirror a shift down.
    turn[np.abs(frequencies) == 0.5] = np.cos(np.pi * shift)
    return turn.astype(np.complex64)


def _blocks(count: int, length: int) -> list[slice]:
    step = max(1, _BLOCK_PIXELS // length)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
