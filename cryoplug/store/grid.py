"""Where the pairs of a store lie: each pair is a stored patch, or a crop of a whole micrograph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Crop(NamedTuple):
    """A window of a stored image; the reader decides its size."""

    image: int
    """Number of the stored image in its split."""
    y: int
    """First row of the window."""
    x: int
    """First column of the window."""


class CropGrid:
    """Crops of whole images, side by side, numbered image by image and row by row; left-over pixels lie at all borders.

    Parameters
    ----------
    shapes
        (y, x) of each image, no smaller than a crop.
    crop_shape
        (y, x) of a crop.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], crop_shape: tuple[int, int]) -> None:
        self._shapes = np.array(shapes, np.int64).reshape(-1, 2)
        self._crop_shape = np.array(crop_shape, np.int64)
        self._per_axis = self._shapes // self._crop_shape
        # Numbers, not a list of windows: a sparse file may claim any number of them.
        self._ends = np.cumsum(self._per_axis.prod(axis=1))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Crop:
        """Return crop number `index`, 0 to below the length."""
        image = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[image - 1]) if image else 0
        place = np.array(divmod(index - first, int(self._per_axis[image, 1])))
        margin = (self._shapes[image] - self._per_axis[image] * self._crop_shape) // 2
        y, x = (margin + place * self._crop_shape).tolist()
        return Crop(image, y, x)
