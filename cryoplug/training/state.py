"""The state of a run between two batches: everything that is needed to go on as if nothing had happened."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import nn

from cryoplug.errors import FormatError, UsageError
from cryoplug.training.average import WeightAverage
from cryoplug.training.weights import put_weights, weights_of

VERSION = 1
_JSON_KEY = "cryoplug_state"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class Position:
    """The position of a run. It is stored as JSON, in which Python keeps floats exactly."""

    epoch: int = 1
    """The epoch in progress, from 1; one more than `epochs` when all are done."""
    batch: int = 0
    """Batches done in it."""
    step: int = 0
    """Optimizer steps done in all."""
    loss_sum: float = 0.0
    """Sum of the losses of this epoch's batches, each times its number of patches."""
    patches: int = 0
    """Patches seen in this epoch."""
    first_batch_loss: float | None = None
    """Loss of the very first batch, before any step."""
    best_epoch: int | None = None
    """Epoch whose checkpoint is kept; see `cryoplug.training.choice`."""
    best_loss: float | None = None
    """Loss of that epoch: of validation, or of training without validation."""
    lowest_epoch: int | None = None
    """Epoch of the lowest loss so far; with halves a later one may be kept."""
    lowest_units: list[float] = field(default_factory=list)
    """Loss of that epoch on each held-out micrograph; empty unless targets are noisy."""
    planned_steps: int | None = None
    """With ``--minutes``: planned steps of the whole run; None until their speed is known."""
    spent_s: float = 0.0
    """With ``--minutes``: seconds spent until the state was saved."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One record for each finished epoch, as in ``metrics.jsonl``."""

    def advance(self, loss: float, patches: int) -> None:
        """Count a batch that was trained on."""
        if self.first_batch_loss is None:
            self.first_batch_loss = loss
        self.batch += 1
        self.step += 1
        self.loss_sum += loss * patches
        self.patches += patches

    def finish_epoch(self, record: dict[str, Any]) -> None:
        """Keep the record of the epoch and go to the start of the next one."""
        self.history.append(record)
        self.epoch += 1
        self.batch, self.patches, self.loss_sum = 0, 0, 0.0


def moved(position: Position, *, before: int, now: int) -> Position:
    """Give the position of a run that goes on with batches of another size, so that the rest of the run stays the same.

    Parameters
    ----------
    position
        Position, counted in steps of `before` patches.
    before, now
        Patches in each step, over all processes, before and now.
    """

    def steps(count: int) -> int:
        return count * before // now

    planned = None if position.planned_steps is None else max(1, steps(position.planned_steps))
    return dataclasses.replace(position, batch=steps(position.batch), step=steps(position.step), planned_steps=planned)


def pack_state(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    position: Position,
    *,
    environment: dict[str, Any],
    average: WeightAverage | None = None,
) -> bytes:
    """Return a safetensors file with weights, their average and Adam's moments; the header has the rest as JSON."""
    weights = weights_of(module) if average is None else average.stepped_weights()
    tensors = {f"weights/{name}": array for name, array in weights.items()}
    if average is not None:
        tensors |= {f"average/{name}": array for name, array in average.weights().items()}
    for name, parameter in module.named_parameters():
        for moment in _MOMENTS:
            value = optimizer.state.get(parameter, {}).get(moment)
            if value is not None:
                tensors[f"{moment}/{name}"] = np.array(value.detach().cpu().contiguous().numpy())
    where = json.dumps(dataclasses.asdict(position), allow_nan=False)
    record = {
        "version": VERSION,
        "position": where,
        "environment": environment,
        "sha256": _digest(tensors, where),
    }
    return save(tensors, {_JSON_KEY: json.dumps(record, allow_nan=False)})


def unpack_state(
    payload: bytes,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    path: Path,
    average: WeightAverage | None = None,
) -> tuple[Position, dict[str, Any]]:
    """Put a packed state into a network, its optimizer and the average of its weights.

    Returns
    -------
    tuple
        The position and the environment that were packed.

    Raises
    ------
    FormatError
        The bytes are damaged or belong to another network.
    """
    damaged = f"{path}: damaged (%s); delete it to start again, or give --overwrite"
    try:
        tensors = load(payload)
        length = int.from_bytes(payload[:8], "little")
        record = json.loads(json.loads(payload[8 : 8 + length])["__metadata__"][_JSON_KEY])
        where, digest, version = str(record["position"]), record["sha256"], record["version"]
        position, environment = Position(**json.loads(where)), dict(record["environment"])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(damaged % error) from error
    if version != VERSION:
        raise FormatError(
            f"{path}: state version {version!r} (allowed: {VERSION}); go on with the cryoplug that wrote it"
        )
    if digest != _digest(tensors, where):
        raise FormatError(damaged % "its checksum differs")
    try:
        put_weights(module, {name[8:]: array for name, array in tensors.items() if name.startswith("weights/")})
    except UsageError as error:
        raise FormatError(f"{path}: {error}; or --overwrite to start again") from error
    if average is not None:
        kept = {name[8:]: array for name, array in tensors.items() if name.startswith("average/")}
        if {name: array.shape for name, array in kept.items()} != {
            name: tuple(tensor.shape) for name, tensor in module.state_dict().items()
        }:
            raise FormatError(damaged % "the average of the weights is not in it")
        average.load(kept)
    for name, parameter in module.named_parameters():
        moments = {moment: tensors.get(f"{moment}/{name}") for moment in _MOMENTS}
        if any(value is None for value in moments.values()):
            continue
        where_step = parameter.device if optimizer.defaults.get("fused") else "cpu"
        step = torch.tensor(float(position.step), dtype=torch.float32, device=where_step)
        state: dict[str, torch.Tensor] = {"step": step}
        for moment, value in moments.items():
            state[moment] = torch.empty_like(parameter, requires_grad=False)
            state[moment].copy_(torch.from_numpy(np.array(value)))
        optimizer.state[parameter] = state
    return position, environment


def _digest(tensors: dict[str, np.ndarray], where: str) -> str:
    digest = hashlib.sha256(where.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()
