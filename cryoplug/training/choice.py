"""Which epoch is kept: the lowest validation loss, or for halves the latest that cannot be told from the lowest.

The target of a Noise2Noise loss is noisy itself, so that nearly all of the loss is the target's noise, the same in every
epoch. It falls out of the difference between two epochs on the same patches, which is the difference of their errors to
the unknown truth, B + N of `cryoplug.metrics.halves`; what is left of chance is measured by how much that difference
varies from one held-out micrograph to the next. See docs/decisions/0009-which-epoch-is-kept.md.
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
    """The held-out patches, grouped into what is compared as one."""

    kind: str
    """``micrographs``, or ``patches`` where a single micrograph (or none that is known) is held out."""
    of_patch: np.ndarray
    """Number of the unit of each held-out patch, from 0, ascending."""


@dataclass(frozen=True)
class Verdict:
    """What an epoch is against those before it."""

    kept: bool
    """Whether its weights are kept, instead of those kept so far."""
    lowest: bool
    """Whether its loss is the lowest so far."""
    difference: float | None = None
    """Its loss less the lowest one before, mean over the units; None without units or in the first epoch."""
    standard_error: float | None = None
    """Of that difference, over the units; None when there are fewer than two."""


def pairs_are_halves(store: PairStore, config: TrainConfig) -> bool:
    """Say whether the sides are halves of an exposure: as the manifest says, or as bare bins are used."""
    return config.augment == "halves" if store.manifest is None else store.manifest.pairs == "halves"


def targets_are_noisy(store: PairStore, config: TrainConfig) -> bool:
    """Say whether a target has noise of its own: the other half, or a single exposure with noise drawn for it."""
    return pairs_are_halves(store, config) or (store.manifest is not None and store.manifest.pairs == "single")


def validation_units(store: PairStore, config: TrainConfig, held_out: np.ndarray) -> Units | None:
    """Group the held-out patches; None where a truth is at hand, for there the lowest loss is the best.

    Parameters
    ----------
    store, config
        What is trained on, and how.
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
        Of the run; not changed.
    loss
        Mean loss of the epoch: on the held-out patches, or in training when there are none.
    unit_losses
        Mean loss on each unit of `validation_units`; empty where the lowest loss decides.

    Returns
    -------
    Verdict
        The epoch is always compared with the lowest one, not with the last one kept. Else a run could drift away from its
        best in steps that are each within the error.
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
