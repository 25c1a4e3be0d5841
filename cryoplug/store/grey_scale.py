"""What ``percentile`` did to the grey values of a store, measured in its patches; this also works for bins from elsewhere."""

from __future__ import annotations

import numpy as np

from cryoplug.core.grey_scale import percentile_remark
from cryoplug.store.pairs import PairStore

MOST_PATCHES = 16


class ClippedPixels:
    """Counts pixels that lie exactly at the ends of [0, 1], where ``percentile`` clips, and measures the spread of all."""

    def __init__(self) -> None:
        self._count, self._clipped = 0, 0
        self._sum, self._squares = 0.0, 0.0

    def add(self, clean: np.ndarray) -> None:
        """Take patches of the clean side into account."""
        self._count += clean.size
        self._clipped += int(np.count_nonzero((clean == 0) | (clean == 1)))
        self._sum += float(clean.sum(dtype=np.float64))
        self._squares += float(np.square(clean, dtype=np.float64).sum())

    @property
    def remark(self) -> str:
        """The warning of `percentile_remark`; empty without pixels, or if all are equal."""
        if not self._count:
            return ""
        mean = self._sum / self._count
        sigma = max(0.0, self._squares / self._count - mean * mean) ** 0.5
        return percentile_remark(self._clipped / self._count, sigma) if sigma else ""


def remark_on_store(store: PairStore) -> str:
    """Warn if ``percentile`` does not suit the micrographs of a store; empty if it does, or was not applied.

    Bins without a manifest are the founding program's, which always uses ``percentile``.
    """
    manifest, count = store.manifest, store.count("train")
    if not count or (manifest is not None and manifest.normalize != "percentile"):
        return ""
    pixels = ClippedPixels()
    noisy, clean = (np.empty((1, *store.patch_shape), np.float32) for _ in range(2))
    for index in np.unique(np.linspace(0, count - 1, min(MOST_PATCHES, count)).round().astype(int)):
        store.read([int(index)], noisy, clean)
        pixels.add(clean)
    return pixels.remark
