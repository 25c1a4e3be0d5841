"""What is random about a training pair: where it is cut, how it is turned, which side is the input.

All of it is a function of (seed, epoch, pair number): where a run was interrupted, in which order or batch a pair comes,
and whether the host or the GPU turns it, does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cryoplug.kernels.patches import place_turned
from cryoplug.store.pairs import Crop, PairStore

_CROP_STREAM = 0xC409
"""Keeps the random numbers of places apart from those of turns."""


@dataclass(frozen=True)
class Draw:
    """What is drawn anew in an epoch."""

    seed: int
    """Of the run."""
    epoch: int
    """From 1."""
    turn: bool = False
    """Whether pairs are turned and mirrored."""
    exchange: bool = False
    """Whether noisy and clean change places in half of the cases: two halves of an exposure are worth the same."""
    end_row: int | None = None
    """Crops of whole micrographs end above this row, because what lies below validates; None: anywhere."""


@dataclass(frozen=True)
class Orientation:
    """One of the 8 ways to lay a square patch, of the 4 ways to lay another: transposed first, then mirrored."""

    transpose: bool = False
    """Rows become columns."""
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
"""As it is."""


def crop_of(draw: Draw, index: int, store: PairStore, split: str) -> Crop:
    """Draw where pair number `index` of a store of whole micrographs is cut in this epoch.

    The micrograph is that of the pair's place on the grid: one of twice the area gives twice the crops.
    """
    image = store.crop_of(index % store.count(split), split).image
    rows, columns = store.image_shape(image, split)
    height, width = store.patch_shape
    rng = np.random.default_rng([draw.seed, draw.epoch, index, _CROP_STREAM])
    y = rng.integers(min(rows, draw.end_row or rows) - height + 1)
    return Crop(image, int(y), int(rng.integers(columns - width + 1)))


def orientation_of(draw: Draw, index: int, *, square: bool) -> Orientation:
    """Draw how pair number `index` is turned in this epoch; both of its sides alike."""
    rng = np.random.default_rng([draw.seed, draw.epoch, index])
    way = int(rng.integers(8))
    exchange = draw.exchange and bool(rng.integers(2))
    # Quarter turns to the left, then for 4 to 7 upside down.
    quarters = way % 4 if square else 2 * (way % 2)
    return Orientation(quarters in (1, 3), (quarters in (1, 2)) != (way >= 4), quarters in (2, 3), exchange)


def place(target: torch.Tensor, source: torch.Tensor, orientation: Orientation) -> None:
    """Copy a patch ``(y, x)`` into `target`, turned; another dtype is converted on the way."""
    place_turned(target, source, transpose=orientation.transpose, flip_y=orientation.flip_y, flip_x=orientation.flip_x)
