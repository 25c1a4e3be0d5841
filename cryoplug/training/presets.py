"""The defaults of a training: the founding recipe, or the recipe that was best for halves in our measurements."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cryoplug.errors import UsageError
from cryoplug.training.config import TrainConfig

RECIPES = ("auto", "founding", "halves", "single")
"""Values of ``--recipe``. ``auto``: ``halves`` for a store of halves, ``single`` for single exposures, else ``founding``."""
CROP_SIZE = 256
"""Side of crops of whole micrographs in pixels, unless one is smaller: many places in a step, each as wide as a unet sees."""
_HALVES: dict[str, Any] = {
    "augment": "halves",
    "mix": 0.5,
    "schedule": "cosine",
    "warmup_steps": 200,
    "ema": 0.999,
    "clip_norm": 1.0,
}
_UNET: dict[str, Any] = {"depth": 3, "stem": 2, "skip": "none"}
_UNET_DECAY = 0.1

_GOING_ON: dict[str, Any] = {"lr": 1e-4, "schedule": "cosine", "warmup_steps": 50}
"""Defaults when training starts from trained weights: a tenth of the usual rate, which ends at 0, so as not to undo them."""
_GOING_ON_RATE = 1e-3
"""Learning rate of a `unet` that starts from trained weights; see docs/decisions/0020-training-further-keeps-the-image.md."""
_GOING_ON_DECAY = 0.01
"""Weight decay of a `unet` that starts from trained weights: the one that they were trained with."""


@dataclass(frozen=True)
class Scale:
    """The size of the recipe ``halves`` that suits a machine."""

    pixels_per_step: int
    """Pixels in a step, over all its patches; each mixture counts."""
    unet_width: int
    """Channels of a `unet` at its finest level."""
    steps_per_epoch: int
    """Steps in an epoch with crops of whole micrographs. It ends with validation and saving, which take 1 to 2 s on an H200:
    a quarter of the time with epochs of 500 steps."""


GPU = Scale(pixels_per_step=1 << 21, unet_width=32, steps_per_epoch=2000)
CPU = Scale(pixels_per_step=1 << 18, unet_width=16, steps_per_epoch=500)
"""On a CPU many small steps teach more than a few large ones; a batch that fills a GPU would take seconds."""


def with_recipe(
    config: TrainConfig,
    recipe: str,
    *,
    pairs: str | None,
    patch_shape: tuple[int, int],
    whole: tuple[int, int] | None,
    on_gpu: bool,
    given: Collection[str],
    goes_on: bool = False,
) -> TrainConfig:
    """Fill in the settings that the user did not choose.

    Parameters
    ----------
    config
        The settings so far.
    recipe
        One of `RECIPES`; see docs/decisions/0008-mixtures-of-halves.md for the figures behind ``halves``.
    pairs
        Kind of pairs in the store; None for bare bins.
    patch_shape
        ``(y, x)`` of the patches of the store.
    whole
        ``(y, x)`` of the smallest micrograph in a store of whole ones; None for a store of patches.
    on_gpu
        Whether it trains on a GPU.
    given
        Fields of `config` that the user chose; they stay. Options in ``model_options`` always stay; others are added, unless
        ``model_options`` is named here.
    goes_on
        Whether training starts from a checkpoint; this makes no difference to ``founding``.

    Raises
    ------
    UsageError
        Mixtures are asked for, but not halves to mix.
    """
    start = _GOING_ON if goes_on else {}
    single = pairs == "single"
    _refuse_foreign(recipe, config, single=single)
    if recipe == "founding":
        return _checked(config, single=single)
    if recipe == "auto" and pairs not in ("halves", "single"):
        return _checked(_filled(config, start, given), single=single)
    scale = GPU if on_gpu else CPU
    chosen = {**_HALVES, **start}
    if single:
        chosen["augment"] = "dihedral"
    if whole is not None:
        side = config.crop_size if config.crop_size is not None else min(CROP_SIZE, *whole)
        patch_shape = (side, side)
        chosen |= {"crop_size": side}
    # Mixtures belong to exchanged halves; who wants no such augmentation wants no mixtures.
    if "augment" in given and config.augment != "halves" and not single:
        del chosen["mix"]
    mix = config.mix if "mix" in given else chosen.get("mix", config.mix)
    pixels = patch_shape[0] * patch_shape[1] * (1 if mix == 1.0 and not single else 2)
    batch_size = max(1, round(scale.pixels_per_step / pixels))
    chosen |= {"batch_size": batch_size}
    if whole is not None:
        taken = config.batch_size if "batch_size" in given else batch_size
        chosen |= {"crops_per_epoch": scale.steps_per_epoch * taken}
    if config.model == "unet":
        chosen["model_options"] = {**_UNET, "width": scale.unet_width, **config.model_options}
        chosen["weight_decay"] = _GOING_ON_DECAY if goes_on else _UNET_DECAY
        if goes_on:
            chosen["lr"] = _GOING_ON_RATE
    return _checked(_filled(config, chosen, given), single=single)


def _filled(config: TrainConfig, chosen: Mapping[str, Any], given: Collection[str]) -> TrainConfig:
    return dataclasses.replace(config, **{name: value for name, value in chosen.items() if name not in given})


def _refuse_foreign(recipe: str, config: TrainConfig, *, single: bool) -> None:
    if recipe == "single" and not single:
        raise UsageError(
            "--recipe single is for a store of convert --pairs single; give --recipe auto, or convert again"
        )
    if single and recipe == "halves":
        raise UsageError("--recipe halves, but the store holds single exposures; give --recipe auto")
    if single and config.augment == "halves":
        raise UsageError(
            "--augment halves, but the store holds single exposures, which have no other half; give --augment dihedral"
        )


def _checked(config: TrainConfig, *, single: bool) -> TrainConfig:
    if config.mix != 1.0 and config.augment != "halves" and not single:
        raise UsageError(
            f"--mix is {config.mix:g}, but --augment is {config.augment} (mixtures of halves: --augment halves, which a store "
            "of halves gets by itself); give one of them"
        )
    return config
