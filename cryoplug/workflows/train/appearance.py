"""The appearance of a store's micrographs, for checkpoint.json; denoise compares micrographs with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryoplug.metrics.appearance import Appearance, measure_appearance, summarize_appearances
from cryoplug.store.pairs import PairStore

FIELD = "seen"
"""Field of ``checkpoint.json`` with the appearance."""
MOST_MICROGRAPHS = 16
MOST_PATCHES = 4
"""Most patches to measure in one micrograph."""
MOST_SIDE_PX = 512
"""Largest side to measure, in pixels; of a larger patch the middle is taken."""


def appearance_of_store(store: PairStore, indices: np.ndarray) -> dict[str, Any] | None:
    """Measure how the micrographs of a store look to a network.

    If noise was added to one side, the other side is measured, because that is the micrograph as denoise will see it.

    Parameters
    ----------
    store
        The pairs.
    indices
        Numbers of the training pairs, ascending. Patches of bare bins count as micrographs.

    Returns
    -------
    dict | None
        See `cryoplug.metrics.appearance.Seen.record`; None if the patches are too small.
    """
    micrographs = np.array([_micrograph(store, int(index)) for index in indices])
    names = np.unique(micrographs)
    found: list[Appearance] = []
    for name in names[_spread(len(names), MOST_MICROGRAPHS)]:
        patches = indices[micrographs == name]
        chosen = patches[_spread(len(patches), MOST_PATCHES)]
        appearance = measure_appearance([_read(store, int(index)) for index in chosen])
        if appearance is not None:
            found.append(appearance)
    seen = summarize_appearances(found)
    return None if seen is None else seen.record()


def _micrograph(store: PairStore, index: int) -> int:
    found = store.micrograph_of(index)
    return index if found is None else found


def _spread(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _read(store: PairStore, index: int) -> np.ndarray:
    sides = [np.empty((1, *store.patch_shape), np.float32) for _ in range(2)]
    store.read([index], *sides)
    added = store.manifest is not None and store.manifest.pairs == "noise"
    cut = tuple(
        slice((side - min(side, MOST_SIDE_PX)) // 2, (side + min(side, MOST_SIDE_PX)) // 2)
        for side in store.patch_shape
    )
    return sides[1 if added else 0][0][cut]
