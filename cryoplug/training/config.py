"""How a network is trained: every setting, checked together, and comparable with those of an earlier run."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryoplug.errors import UsageError, not_allowed
from cryoplug.machine.devices import device_problems, thread_problems

AUGMENTATIONS = ("none", "dihedral", "halves")
LOSSES = ("mse", "l1", "charbonnier")
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("auto", "float32", "bf16")
CACHES = ("auto", "none", "ram", "gpu")
_RUNTIME_FIELDS = ("device", "threads", "cache", "checkpoint_minutes")


@dataclass(frozen=True)
class TrainConfig:
    """All settings that decide the trained weights, and those for carrying out the run."""

    model: str = "cryo_cnn"
    """Network id; see `cryoplug.models.registry`."""
    model_options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the network's factory, such as ``depth`` and ``width`` of a `unet`."""
    epochs: int = 5
    """Passes over the training patches."""
    minutes: float | None = None
    """Train for about this long instead of by epochs; see `training.pace`. None trains by epochs."""
    lr: float = 0.001
    """Adam's learning rate; beta 0.9 and 0.999, eps 1e-8."""
    schedule: str = "constant"
    """The learning rate after the warm-up: ``constant``, or ``cosine`` down to 0 at the end of the last epoch."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly."""
    loss: str = "mse"
    """``mse``, ``l1`` or ``charbonnier``; see `cryoplug.kernels.losses`."""
    clip_norm: float | None = None
    """Largest norm of all gradients of a step together; None sets no limit."""
    ema: float | None = None
    """Decay of a moving average of the weights, which is validated and kept instead of the last weights; None for none."""
    patience: int | None = None
    """End after this many epochs in a row without a better one; None never ends early."""
    weight_decay: float = 0.0
    """Each step subtracts this times the learning rate of every weight (AdamW); 0 for none."""
    batch_size: int = 8
    """Patches in each step; with mixtures, each counts as two images. The last batch of an epoch may be smaller."""
    val_split: float = 0.1
    """Part held out for validation: of the micrographs, or of the patches of bare bins; 0 holds out nothing."""
    max_batches: int | None = None
    """For a quick test: most batches in an epoch, in training and in validation; None for all."""
    patch_size: int = 1024
    """Side of the patches of bare bins; a store with a manifest knows its own."""
    seed: int = 0
    """Random seed of first weights, split, order and augmentation."""
    shuffle: bool = True
    """Whether each epoch has a new order."""
    crop_size: int | None = None
    """Side of the crops of whole micrographs in pixels; None takes convert's."""
    crops_per_epoch: int | None = None
    """Crops of whole micrographs in an epoch; None takes as many as fit side by side."""
    augment: str = "none"
    """``none``; ``dihedral``: turn and mirror each pair at random; ``halves``: also exchange its sides at random."""
    mix: float = 1.0
    """With ``halves``: share of the difference in mixtures of the halves, see `cryoplug.training.data.mixing`; 1 is the halves
    themselves. With single exposures: share of drawn noise in the input, see `cryoplug.training.data.recorruption`."""
    device: str = "auto"
    """``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``."""
    precision: str = "auto"
    """``float32``; ``bf16``: layers of the network compute in bfloat16; ``auto``: see `engine.choose_precision`."""
    cache: str = "auto"
    """Where the training set stays after the first reading: ``gpu``, ``ram``, ``none``; ``auto``: see `open_loader`."""
    threads: int = 0
    """CPU threads; 0 takes every core that this process may use."""
    checkpoint_minutes: float = 5.0
    """Minutes between saves of the state for ``--resume``, in addition to one after each epoch; 0 saves after every batch."""

    def __post_init__(self) -> None:
        """Collect all problems, and raise one error."""
        problems = []

        def check(fine: bool, field: str, allowed: str) -> None:
            if not fine:
                flag = "--" + field.replace("_", "-")
                problems.append(not_allowed(flag, getattr(self, field), allowed))

        check(bool(self.model), "model", "a model id")
        check(self.epochs >= 1, "epochs", "1 or more")
        fine = self.minutes is None or (math.isfinite(self.minutes) and self.minutes > 0)
        check(fine, "minutes", "a number above 0, or not given")
        check(math.isfinite(self.lr) and self.lr > 0, "lr", "a finite number above 0")
        check(self.schedule in SCHEDULES, "schedule", ", ".join(SCHEDULES))
        check(self.warmup_steps >= 0, "warmup_steps", "0 or more")
        check(self.loss in LOSSES, "loss", ", ".join(LOSSES))
        limit = self.clip_norm
        check(limit is None or (math.isfinite(limit) and limit > 0), "clip_norm", "a number above 0, or not given")
        check(math.isfinite(self.weight_decay) and self.weight_decay >= 0, "weight_decay", "0 or a finite number above")
        check(self.ema is None or 0 < self.ema < 1, "ema", "above 0 and below 1, or not given")
        check(self.patience is None or self.patience >= 1, "patience", "1 or more, or not given")
        check(self.batch_size >= 1, "batch_size", "1 or more")
        check(0 <= self.val_split < 1, "val_split", "0 to below 1")
        check(self.max_batches is None or self.max_batches >= 1, "max_batches", "1 or more, or not given")
        check(self.patch_size >= 1, "patch_size", "1 or more")
        check(0 <= self.seed < 2**63, "seed", "0 or more")
        check(self.crop_size is None or self.crop_size >= 1, "crop_size", "1 or more, or not given")
        check(self.crops_per_epoch is None or self.crops_per_epoch >= 1, "crops_per_epoch", "1 or more, or not given")
        check(self.augment in AUGMENTATIONS, "augment", ", ".join(AUGMENTATIONS))
        check(0.1 <= self.mix <= 1, "mix", "0.1 to 1")
        check(self.precision in PRECISIONS, "precision", ", ".join(PRECISIONS))
        check(self.cache in CACHES, "cache", ", ".join(CACHES))
        check(self.checkpoint_minutes >= 0, "checkpoint_minutes", "0 or more")
        problems += thread_problems(self.threads)
        problems += device_problems(self.device)
        if problems:
            raise UsageError("; ".join(problems))

    @staticmethod
    def completed(record: dict[str, Any]) -> dict[str, Any]:
        """Complete an `identity` that an older version wrote, by the defaults of the fields that it did not have."""
        return {**TrainConfig().identity(), **record}

    def identity(self) -> dict[str, Any]:
        """Return the fields that decide the weights; also `epochs`, because a run is finished after a certain number."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in _RUNTIME_FIELDS}

    @property
    def thread_count(self) -> int:
        """CPU threads to use."""
        return self.threads or len(os.sched_getaffinity(0))


def differing_fields(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say in words which fields differ, as ``lr was 0.001, is 0.01``; of a field with fields of its own, those that differ."""
    texts = []
    for key in sorted(set(before) | set(now)):
        was, is_now = before.get(key), now.get(key)
        if isinstance(was, dict) and isinstance(is_now, dict):
            texts += [f"{key} {text}" for text in differing_fields(was, is_now)]
        elif was != is_now:
            texts.append(f"{key} was {_brief(was)}, is {_brief(is_now)}")
    return texts


def parse_model_options(texts: Iterable[str]) -> dict[str, int | float | str]:
    """Read ``name=value`` texts; a value that looks like a number becomes one.

    Raises
    ------
    UsageError
        A text has no name or no value, or a name comes twice.
    """
    options: dict[str, int | float | str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals and value):
            raise UsageError(f"--model-option {text!r} (allowed: NAME=VALUE, as in depth=4)")
        if name in options:
            raise UsageError(f"--model-option {name} is given twice; give it once")
        options[name] = _number(value)
    return options


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            number = kind(text)
            if math.isfinite(number):
                return number
    return text


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:12] + "..."
