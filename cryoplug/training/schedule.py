"""The learning rate of a step, the limit on its gradients, and the end of training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from cryoplug.training.config import TrainConfig
from cryoplug.training.state import Position


def learning_rate(config: TrainConfig, step: int, *, total_steps: int) -> float:
    """Return the learning rate of a step. It depends on the number of the step alone, so an interrupted run goes on with it.

    Parameters
    ----------
    config
        ``lr``, ``schedule`` and ``warmup_steps`` count. The rate rises linearly over the warm-up, which is at most a fifth of
        all steps. Then it stays (``constant``), or falls along half a cosine to 0 at the end of the last epoch (``cosine``).
    step
        Steps done before, from 0.
    total_steps
        Steps of the whole run.
    """
    warmup = min(config.warmup_steps, total_steps // 5)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    done = (step - warmup) / max(1, total_steps - warmup)
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


def limit_gradients(gradients: Sequence[torch.Tensor], limit: float) -> None:
    """Scale all gradients by one factor, in place, so that the norm over all of them is at most `limit`."""
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
    factor = (limit / (norm + 1e-12)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)


def is_done(position: Position, config: TrainConfig) -> bool:
    """Say whether all epochs or planned steps are done, or no epoch was better for ``patience`` epochs."""
    return _is_complete(position, config) or gave_up(position, config)


def gave_up(position: Position, config: TrainConfig) -> bool:
    """Say whether the run ends before its last epoch because it no longer improves."""
    lowest = position.lowest_epoch or position.best_epoch
    if config.patience is None or lowest is None or _is_complete(position, config):
        return False
    return position.epoch - 1 - lowest >= config.patience


def _is_complete(position: Position, config: TrainConfig) -> bool:
    if config.minutes is None:
        return position.epoch > config.epochs
    # A last epoch that is trained and not yet validated is not done.
    return position.batch == 0 and position.step == position.planned_steps
