"""Some rows, spread over a micrograph, by which its grey values are known before all pixels are read."""

from __future__ import annotations

import functools

import numpy as np

from cryoplug.core.micrograph import ImageF32, MicrographSource

SAMPLED_ROWS = 64
"""Of 4096 columns they are 260,000 pixels."""
_READ_AT_ONCE = 1 << 20
"""Pixels of a micrograph that is read as a whole for the sampled rows: 64 calls take longer."""


@functools.lru_cache(maxsize=16)
def sampled_rows(height: int) -> np.ndarray:
    """Give the numbers of the rows, ascending; not to be written to."""
    return np.unique(np.linspace(0, height - 1, min(SAMPLED_ROWS, height)).astype(int))


def read_sampled_rows(source: MicrographSource) -> ImageF32:
    """Read the rows that `sampled_rows` names."""
    rows = sampled_rows(source.shape[0])
    if source.shape[0] * source.shape[1] <= _READ_AT_ONCE:
        return source.read_rows(0, source.shape[0])[rows]
    return np.concatenate([source.read_rows(int(y), int(y) + 1) for y in rows])
