"""Which epoch is kept: that of the lowest validation loss; for halves the latest that is not measurably worse.

With halves the target is noisy, so nearly all of the loss is the target's noise, which is the same in every epoch. It cancels
in the difference between two epochs on the same patches. This difference is that of their errors to the unknown truth, B + N
of `cryoplug.metrics.halves`. Its own error follows from how much it varies from one held-out micrograph to the next. See
docs/decisions/0009-which-epoch-is-kept.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryoplug.store.pairs import PairStore
from cryoplug.training.config import TrainConfig
from cryoplug.training.state import Position

MICROGRAPHS, PATCHES = "micrographs", "patches"


@dataclass(frozen=True)
class Units:
    """The held-out patches, grouped into units that are compared as one."""

    kind: str
    """``micrographs``; or ``patches`` if only one micrograph is held out, or micrographs are not known."""
    of_patch: np.ndarray
    """Number of the unit of each held-out patch, from 0, ascending."""


@dataclass(frozen=True)
class Verdict:
    """How an epoch compares with those before it."""

    kept: bool
    """Whether its weights replace those kept so far."""
    lowest: bool
    """Whether its loss is the lowest so far."""
    difference: float | None = None
    """Loss minus the lowest loss before, as mean over the units; None without units or in the first epoch."""
    standard_error: float | None = None
    """Standard error of that difference over the units; None with fewer than two."""


def pairs_are_halves(store: PairStore, config: TrainConfig) -> bool:
    """Say whether the sides are halves of an exposure: from the manifest, or for bare bins from the way they are used."""
    return config.augment == "halves" if store.manifest is None else store.manifest.pairs == "halves"


def targets_are_noisy(store: PairStore, config: TrainConfig) -> bool:
    """Say whether targets are noisy: the other half, or a single exposure with drawn noise."""
    return pairs_are_halves(store, config) or (store.manifest is not None and store.manifest.pairs == "single")


def validation_units(store: PairStore, config: TrainConfig, held_out: np.ndarray) -> Units | None:
    """Group the held-out patches; None if targets are the truth, because then the lowest loss is the best.

    Parameters
    ----------
    store, config
        The training pairs, and how the network is trained.
    held_out
        Indices of the held-out patches, ascending.
    """
    if not held_out.size or not targets_are_noisy(store, config):
        return None
    micrographs = np.array([-1 if (found := store.micrograph_of(int(i))) is None else found for i in held_out])
    starts = np.diff(micrographs, prepend=micrographs[0]) != 0
    if not starts.any():
        return Units(PATCHES, np.arange(len(held_out)))
    return Units(MICROGRAPHS, np.cumsum(starts))


def judge_epoch(position: Position, loss: float, unit_losses: list[float]) -> Verdict:
    """Compare the epoch that has just ended with the lowest one before it.

    Parameters
    ----------
    position
        Position of the run; not changed.
    loss
        Mean loss of the epoch: on the held-out patches, or in training when there are none.
    unit_losses
        Mean loss on each unit of `validation_units`; empty if the lowest loss decides.

    Returns
    -------
    Verdict
        The epoch is always compared with the lowest one, not with the last one kept. Otherwise a run could drift away from
        its best epoch in small steps, each within the error.
    """
    if not unit_losses or not position.lowest_units:
        first_or_lower = position.best_loss is None or loss < position.best_loss
        return Verdict(kept=first_or_lower, lowest=first_or_lower)
    differences = np.array(unit_losses) - np.array(position.lowest_units)
    count, difference = len(differences), float(differences.mean())
    error = float(differences.std(ddof=1) / np.sqrt(count)) if count > 1 else None
    return Verdict(difference <= (error or 0.0), difference < 0, difference, error)


def note_epoch(position: Position, verdict: Verdict, loss: float, unit_losses: list[float]) -> None:
    """Write a verdict into the position of the run."""
    if verdict.kept:
        position.best_epoch, position.best_loss = position.epoch, loss
    if verdict.lowest:
        position.lowest_epoch, position.lowest_units = position.epoch, unit_losses
