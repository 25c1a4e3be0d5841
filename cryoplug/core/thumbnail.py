"""A small copy of a large image: means of square blocks of pixels, summed while its rows are read."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cryoplug.core.micrograph import ImageF32, MicrographSource, row_bands
from cryoplug.errors import ShapeError

THUMBNAIL_PX = 720
"""Longest side of a thumbnail in pixels: two fit side by side on a screen, and a particle of 150 angstrom has 20 pixels."""


def thumbnail_step(shape: tuple[int, int], longest_px: int = THUMBNAIL_PX) -> int:
    """Give the side of a block, in pixels, with which the longer side of an image ``(y, x)`` has at most `longest_px` blocks."""
    return max(1, math.ceil(max(shape) / longest_px))


class Thumbnail:
    """Sums blocks of pixels of an image that comes in bands of rows, in any order.

    Parameters
    ----------
    shape
        Shape of the image, ``(y, x)``.
    step
        Side of a block in pixels; None takes `thumbnail_step`. Rows and columns left over at the end are left out. If a side
        is shorter than a block, blocks are as long as the side.
    """

    def __init__(self, shape: tuple[int, int], step: int | None = None) -> None:
        if not all(shape):
            raise ShapeError(f"an image of shape {shape} (y, x) has no thumbnail; each side needs a pixel")
        step = thumbnail_step(shape) if step is None else step
        self.steps = (min(step, shape[0]), min(step, shape[1]))
        """Pixels of a block, ``(y, x)``."""
        self.shape = (shape[0] // self.steps[0], shape[1] // self.steps[1])
        """Shape of the thumbnail, ``(y, x)``."""
        self._sums = np.zeros((self.shape[0], self.shape[1] * self.steps[1]), np.float32)

    def add(self, start: int, rows: ImageF32) -> None:
        """Add a band of rows.

        Parameters
        ----------
        start
            Row of the image that `rows` begins with.
        rows
            ``(y, x)``, as wide as the image.
        """
        step = self.steps[0]
        stop = min(start + len(rows), self.shape[0] * step)
        first, last = -(-start // step), stop // step
        # Blocks that begin above the band, then all that lie in it as a whole, then the one that ends below it.
        for begin, end in ((start, min(first * step, stop)), (max(first, last) * step, stop)):
            if begin < end:
                self._sums[begin // step] += self._sum(rows[begin - start : end - start][None])[0]
        if first < last:
            whole = rows[first * step - start : last * step - start]
            self._sums[first:last] += self._sum(whole.reshape(last - first, step, rows.shape[1]))

    def _sum(self, blocks: ImageF32) -> ImageF32:
        summed: ImageF32 = blocks[:, :, : self._sums.shape[1]].sum(axis=1, dtype=np.float32)
        return summed

    def image(self) -> ImageF32:
        """Give the means, ``(y, x)``; a block with a pixel that is not finite is not finite either."""
        columns = self._sums.reshape(*self.shape, self.steps[1])
        # Strided additions are three times as fast as a sum over a short last axis.
        total = columns[:, :, 0].copy()
        for column in range(1, self.steps[1]):
            total += columns[:, :, column]
        return total / np.float32(self.steps[0] * self.steps[1])


@dataclass(frozen=True, eq=False)
class SmallImage:
    """A thumbnail, with the shape of the image that it shows."""

    pixels: ImageF32
    """``(y, x)``."""
    shape: tuple[int, int]
    """Shape of the image, ``(y, x)``."""

    @property
    def steps(self) -> tuple[int, int]:
        """Pixels of a block, ``(y, x)``; they differ only where a side is shorter than a block."""
        return self.shape[0] // self.pixels.shape[0], self.shape[1] // self.pixels.shape[1]


@dataclass(frozen=True, eq=False)
class BeforeAfter:
    """Thumbnails of a micrograph before and after denoising."""

    raw: SmallImage
    """The micrograph as it was read."""
    denoised: SmallImage
    """The result as it was written; it may have another pixel size."""


def thumbnail_of(source: MicrographSource) -> SmallImage:
    """Read a micrograph once and give its thumbnail."""
    small = Thumbnail(source.shape)
    for start, rows in row_bands(source):
        small.add(start, rows)
    return SmallImage(small.image(), source.shape)
