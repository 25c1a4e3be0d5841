"""What a run does where its user chose nothing: the founding program's way, or the one measured best for halves."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from cryoplug.training.config import TrainConfig

RECIPES = ("auto", "founding", "halves")
"""``auto``: ``halves`` for a store of halves, otherwise ``founding``."""
PIXELS_PER_STEP = 1 << 21
"""Of the recipe ``halves``: as many patches a step as come to this."""
_HALVES: dict[str, Any] = {
    "augment": "halves",
    "mix": 0.5,
    "schedule": "cosine",
    "warmup_steps": 200,
    "ema": 0.999,
    "clip_norm": 1.0,
}
_MODEL_OPTIONS: dict[str, dict[str, Any]] = {"unet": {"depth": 3, "width": 64, "stem": 2, "skip": "none"}}


def with_recipe(
    config: TrainConfig, recipe: str, *, pairs: str | None, alike: bool, patch_pixels: int, given: Collection[str]
) -> TrainConfig:
    """Fill in what the user left open.

    Parameters
    ----------
    config
        What was asked for.
    recipe
        One of `RECIPES`; see docs/decisions/0008-mixtures-of-halves.md for the figures behind ``halves``.
    pairs
        Regime of the store; None for bare bins.
    alike
        Whether the halves have equally strong noise, without which mixtures of them are biased.
    patch_pixels
        Pixels of a patch.
    given
        Fields of `config` that the user chose himself; they stay.
    """
    if recipe == "founding" or (recipe == "auto" and pairs != "halves"):
        return config
    batch_size = max(1, round(PIXELS_PER_STEP / patch_pixels))
    chosen = {**_HALVES, "batch_size": batch_size}
    if config.model in _MODEL_OPTIONS and not config.model_options:
        chosen["model_options"] = _MODEL_OPTIONS[config.model]
    # Mixtures belong to exchanged halves; who wants no such augmentation wants no mixtures.
    if not alike or ("augment" in given and config.augment != "halves"):
        del chosen["mix"]
    return dataclasses.replace(config, **{name: value for name, value in chosen.items() if name not in given})
