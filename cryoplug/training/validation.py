"""Measure a network on the patches that were held out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cryoplug.training.engine import Engine
from cryoplug.training.loader import Batch, BatchLoader, closing_batches


def validate(
    engine: Engine,
    loader: BatchLoader,
    indices: np.ndarray,
    *,
    max_batches: int | None,
    check: Callable[[Batch, int, float], None],
) -> float | None:
    """Return the mean loss over the held-out patches, each patch counted alike; None when there are none.

    Parameters
    ----------
    engine, loader
        The network and the data.
    indices
        Patches in ascending order; never shuffled, never augmented.
    max_batches
        Look at no more batches than this.
    check
        Called after each batch with the batch, its number from 1 and its loss: refuses a loss that is not finite, and
        heeds signals.
    """
    total, seen = 0.0, 0
    with closing_batches(loader.batches(indices, limit=max_batches)) as batches:
        for number, batch in enumerate(batches, start=1):
            loss = engine.loss(batch.noisy, batch.clean)
            check(batch, number, loss)
            total += loss * len(batch.indices)
            seen += len(batch.indices)
    return total / seen if seen else None
