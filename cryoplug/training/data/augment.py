"""The random choices for a training pair: its place, its orientation, and which side is the input.

All of them are functions of (seed, epoch, pair number). So it does not matter where a run was interrupted, in which order or
batch a pair comes, or whether the host or the GPU turns it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cryoplug.kernels.patches import place_turned
from cryoplug.store.pairs import Crop, PairStore

_CROP_STREAM = 0xC409
"""Number of the random stream of places; turns have another."""


@dataclass(frozen=True)
class Draw:
    """The random choices of an epoch."""

    seed: int
    """Random seed of the run."""
    epoch: int
    """Number of the epoch, from 1."""
    turn: bool = False
    """Whether to turn and mirror pairs."""
    exchange: bool = False
    """Whether to exchange noisy and clean in half of the cases, because two halves are equally good."""
    end_row: int | None = None
    """Crops of whole micrographs end before this row, because later rows validate; None for no limit."""


@dataclass(frozen=True)
class Orientation:
    """One of the 8 orientations of a square patch (4 of any other): transposed first, then mirrored."""

    transpose: bool = False
    """Whether to swap rows and columns."""
    flip_y: bool = False
    """The last row becomes the first."""
    flip_x: bool = False
    """The last column becomes the first."""
    exchange: bool = False
    """Noisy and clean change places."""

    def source_of(self, side: int) -> int:
        """Return which stored side (0 noisy, 1 clean) becomes `side`."""
        return 1 - side if self.exchange else side


UPRIGHT = Orientation()
"""The orientation that changes nothing."""


def crop_of(draw: Draw, index: int, store: PairStore, split: str) -> Crop:
    """Draw the place where pair number `index` of a store of whole micrographs is cut in this epoch.

    The micrograph is that of the pair's place on the grid, so one of twice the area gives twice as many crops.
    """
    image = store.crop_of(index % store.count(split), split).image
    rows, columns = store.image_shape(image, split)
    height, width = store.patch_shape
    rng = np.random.default_rng([draw.seed, draw.epoch, index, _CROP_STREAM])
    y = rng.integers(min(rows, draw.end_row or rows) - height + 1)
    return Crop(image, int(y), int(rng.integers(columns - width + 1)))


def orientation_of(draw: Draw, index: int, *, square: bool) -> Orientation:
    """Draw the orientation of pair number `index` in this epoch; both sides are turned alike."""
    rng = np.random.default_rng([draw.seed, draw.epoch, index])
    way = int(rng.integers(8))
    exchange = draw.exchange and bool(rng.integers(2))
    # Quarter turns to the left, then for 4 to 7 upside down.
    quarters = way % 4 if square else 2 * (way % 2)
    return Orientation(quarters in (1, 3), (quarters in (1, 2)) != (way >= 4), quarters in (2, 3), exchange)


def place(target: torch.Tensor, source: torch.Tensor, orientation: Orientation) -> None:
    """Copy a patch ``(y, x)`` into `target`, turned; its dtype is converted if needed."""
    place_turned(target, source, transpose=orientation.transpose, flip_y=orientation.flip_y, flip_x=orientation.flip_x)
