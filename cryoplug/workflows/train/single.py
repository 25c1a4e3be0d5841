"""Training on single exposures: the noise that the store records for each micrograph."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from cryoplug.errors import FormatError
from cryoplug.metrics.micrograph_noise import MicrographNoise
from cryoplug.store.pairs import PairStore

if TYPE_CHECKING:
    from cryoplug.training.config import TrainConfig
    from cryoplug.training.data.recorruption import Recorruption


def recorruption_of(
    store: PairStore, config: TrainConfig, device: Any, note: Callable[[str], None] = lambda text: None
) -> Recorruption:
    """Give the object that adds drawn noise to the crops of a store of single exposures.

    Parameters
    ----------
    store
        Store of ``convert --pairs single``.
    config
        Its ``mix`` and seed are used.
    device
        Device of the batches.
    note
        Called with a sentence: where the noise comes from, and how well it is known.

    Raises
    ------
    FormatError
        The manifest has no noise for a micrograph.
    """
    from cryoplug.training.data.recorruption import Recorruption

    assert store.manifest is not None
    noises = []
    for entry in store.manifest.micrographs:
        try:
            noises.append(MicrographNoise.from_dict(entry.noise or {}))
        except FormatError as error:
            raise FormatError(f"{store.path}: {entry.name}: {error}") from error
    note(_description(noises))
    of_image = np.array([micrograph for micrograph, _, _ in store.manifest.windows["train"]], np.int64)
    return Recorruption(config.mix, noises, of_image, seed=config.seed, device=device)


def _description(noises: list[MicrographNoise]) -> str:
    words = {
        "counts": "from counted electrons",
        "spectrum": "from the spectrum beyond the signal",
        "ice": "from places without particles",
    }
    sources = [noise.source for noise in noises]
    parts = [f"{text} in {sources.count(source)}" for source, text in words.items() if source in sources]
    known = [noise.uncertainty_db for noise in noises if noise.uncertainty_db is not None]
    count = f"{len(noises)} single exposure{'s' * (len(noises) != 1)}"
    text = f"{count}; training adds noise like theirs, measured {', '.join(parts)}"
    if known:
        text = f"{text}; known to {max(max(known), 0.01):.2g} dB or better"
    doubtful = sum(not noise.trusted for noise in noises)
    return f"{text}; NOT trusted in {doubtful}" if doubtful else text
