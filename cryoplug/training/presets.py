"""What a run does where its user chose nothing: the founding program's way, or the one measured best for halves."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from cryoplug.errors import UsageError
from cryoplug.training.config import TrainConfig

RECIPES = ("auto", "founding", "halves")
"""``auto``: ``halves`` for a store of halves, otherwise ``founding``."""
PIXELS_PER_STEP = 1 << 21
"""Of the recipe ``halves``: as many patches a step as come to this."""
CROP_SIZE = 256
"""Of whole micrographs, unless one is smaller: many places in a step, each seen with about what the unet looks at."""
STEPS_PER_EPOCH = 500
"""With crops of whole micrographs: an epoch ends with validation and saving, which cost as much as many steps."""
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
    config: TrainConfig,
    recipe: str,
    *,
    pairs: str | None,
    patch_shape: tuple[int, int],
    whole: tuple[int, int] | None,
    given: Collection[str],
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
    patch_shape
        ``(y, x)`` of the patches of the store.
    whole
        ``(y, x)`` of the smallest micrograph in a store of whole ones; None for a store of patches.
    given
        Fields of `config` that the user chose himself; they stay.

    Raises
    ------
    UsageError
        Mixtures are asked for, but not halves to mix.
    """
    if recipe == "founding" or (recipe == "auto" and pairs != "halves"):
        return _checked(config)
    chosen = dict(_HALVES)
    if whole is not None:
        side = config.crop_size if config.crop_size is not None else min(CROP_SIZE, *whole)
        patch_shape = (side, side)
        chosen |= {"crop_size": side}
    batch_size = max(1, round(PIXELS_PER_STEP / (patch_shape[0] * patch_shape[1])))
    chosen |= {"batch_size": batch_size}
    if whole is not None:
        chosen |= {"crops_per_epoch": STEPS_PER_EPOCH * (config.batch_size if "batch_size" in given else batch_size)}
    if config.model in _MODEL_OPTIONS and not config.model_options:
        chosen["model_options"] = _MODEL_OPTIONS[config.model]
    # Mixtures belong to exchanged halves; who wants no such augmentation wants no mixtures.
    if "augment" in given and config.augment != "halves":
        del chosen["mix"]
    return _checked(dataclasses.replace(config, **{name: value for name, value in chosen.items() if name not in given}))


def _checked(config: TrainConfig) -> TrainConfig:
    if config.mix != 1.0 and config.augment != "halves":
        raise UsageError(
            f"--mix is {config.mix:g}, but --augment is {config.augment} (mixtures of halves: --augment halves, which a store "
            "of halves gets by itself); give one of them"
        )
    return config
