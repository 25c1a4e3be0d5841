"""Some rows, spread over a micrograph, that show its grey values before all pixels are read."""

from __future__ import annotations

import functools

import numpy as np

from cryoplug.core.micrograph import ImageF32, MicrographSource

SAMPLED_ROWS = 64
"""Number of rows in the sample: 260,000 pixels of a micrograph with 4096 columns."""
_READ_AT_ONCE = 1 << 20
"""Micrographs up to this many pixels are read as a whole, because 64 calls would take longer."""


@functools.lru_cache(maxsize=16)
def sampled_rows(height: int) -> np.ndarray:
    """Give the numbers of the rows, ascending; the array is shared, so do not write to it."""
    return np.unique(np.linspace(0, height - 1, min(SAMPLED_ROWS, height)).astype(int))


def read_sampled_rows(source: MicrographSource) -> ImageF32:
    """Read the rows that `sampled_rows` names."""
    rows = sampled_rows(source.shape[0])
    if source.shape[0] * source.shape[1] <= _READ_AT_ONCE:
        return source.read_rows(0, source.shape[0])[rows]
    return np.concatenate([source.read_rows(int(y), int(y) + 1) for y in rows])
