"""Measure a network on the patches that were held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cryoplug.training.choice import Units
from cryoplug.training.data.loader import Batch, BatchLoader, closing_batches
from cryoplug.training.data.mixing import Mixer
from cryoplug.training.data.recorruption import Recorruption
from cryoplug.training.distributed import ALONE, Processes
from cryoplug.training.engine import Engine


@dataclass(frozen=True)
class Validation:
    """The loss on the held-out patches."""

    loss: float
    """Mean loss over the patches."""
    unit_losses: tuple[float, ...] = ()
    """Mean loss over the patches of each unit that was measured; empty without units."""


def validate(
    engine: Engine,
    loader: BatchLoader,
    indices: np.ndarray,
    *,
    units: Units | None = None,
    mixer: Mixer | Recorruption | None = None,
    max_batches: int | None,
    check: Callable[[Batch, int, float], None],
    after_batch: Callable[[], None] = lambda: None,
    processes: Processes = ALONE,
) -> Validation | None:
    """Measure the loss on the held-out patches; None if there are none.

    Parameters
    ----------
    engine, loader
        The network and the data.
    indices
        Patches in ascending order; never shuffled, never augmented.
    units
        Groups of patches; None for no groups.
    mixer
        Makes mixtures, as in training; None makes none.
    max_batches
        Most batches to measure.
    check
        Called with each batch, its number from 1, and the loss of some of its rows; raises if the loss is not finite.
    after_batch
        Called after each batch, to handle signals.
    processes
        The processes that share the patches.
    """
    seen = 0
    of_patch = np.zeros(len(indices), int) if units is None else units.of_patch
    sums, counts = (np.zeros(int(of_patch[-1]) + 1 if len(of_patch) else 0) for _ in range(2))
    scale = 1.0 if mixer is None else mixer.loss_scale
    with closing_batches(loader.batches(indices, limit=max_batches)) as batches:
        for number, batch in enumerate(batches, start=1):
            noisy, clean = batch.noisy, batch.clean
            if mixer is not None:
                images = [crop.image for crop in batch.crops]
                mixer.prepare(None, shape=noisy.shape, images=images, part=number, rows=batch.rows)
                noisy, clean = mixer.mix(noisy, clean)
            copies = len(noisy) // len(batch.indices)  # of each patch
            of_row = of_patch[seen : seen + batch.rows.whole][batch.rows.own]
            for unit, rows in _runs(of_row) if batch.rows.weight else ():
                own = slice(copies * rows.start, copies * rows.stop)
                loss = scale * engine.loss(noisy[own], clean[own])
                check(batch, number, loss)
                sums[unit] += loss * (rows.stop - rows.start)
                counts[unit] += rows.stop - rows.start
            seen += batch.rows.whole
            after_batch()
    if not seen:
        return None
    sums, counts = processes.total(sums), processes.total(counts)
    looked_at = counts > 0
    means = () if units is None else tuple(float(value) for value in sums[looked_at] / counts[looked_at])
    return Validation(float(sums.sum()) / seen, means)


def _runs(units: np.ndarray) -> Iterator[tuple[int, slice]]:
    """Split the rows of a batch where the unit changes."""
    starts = np.flatnonzero(np.diff(units, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(units)], strict=True):
        yield int(units[start]), slice(int(start), int(stop))
