"""Compare a micrograph with what its checkpoint was trained on, by a few windows of it that pass by in bands of rows."""

from __future__ import annotations

import numpy as np

from cryoplug.core.normalization import Normalization
from cryoplug.metrics.appearance import Seen, measure_appearance, unlike
from cryoplug.models.checkpoint import Checkpoint

FIELD = "seen"
"""Of ``checkpoint.json``; checkpoints of older versions and of the founding program do not have it."""
WINDOWS = 2
"""In each direction: with those of 512 pixels about a million pixels, measured in 40 ms on one core."""
WINDOW_PX = 512


class Sampler:
    """Keeps windows of a micrograph while its rows pass by; does nothing for a checkpoint without a record.

    Parameters
    ----------
    checkpoint
        What will be applied.
    shape
        Of the micrograph on the network's grid, ``(y, x)``.
    """

    def __init__(self, checkpoint: Checkpoint, shape: tuple[int, int]) -> None:
        self._seen = Seen.from_record(checkpoint.details.get(FIELD))
        tops, lefts = (_starts(side) for side in shape)
        sides = tuple(min(side, WINDOW_PX) for side in shape)
        self._windows = [(y, x, np.empty(sides, np.float32)) for y in tops for x in lefts] if self._seen else []

    def add(self, start: int, rows: np.ndarray) -> None:
        """Keep what lies in the windows.

        Parameters
        ----------
        start
            Row of the micrograph that `rows` begins with.
        rows
            Grey values of whole rows; all rows must pass by once.
        """
        for y, x, window in self._windows:
            first, last = max(start, y), min(start + len(rows), y + window.shape[0])
            if first < last:
                window[first - y : last - y] = rows[first - start : last - start, x : x + window.shape[1]]

    def remarks(self, normalization: Normalization) -> list[str]:
        """Say how the micrograph differs from the training data."""
        if self._seen is None:
            return []
        found = measure_appearance(normalization.apply(window) for _, _, window in self._windows)
        return [] if found is None else [f"unlike the training data: {text}" for text in unlike(found, self._seen)]


def _starts(side: int) -> list[int]:
    last = side - min(side, WINDOW_PX)
    return sorted({int(start) for start in np.linspace(0, last, WINDOWS)})
