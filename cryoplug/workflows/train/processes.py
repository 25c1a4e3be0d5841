"""Agreement of several processes of one training before they begin: request, data, and position of the run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from cryoplug.errors import UsageError
from cryoplug.workflows.train.identity import PATCHES_A_STEP, PROCESSES

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from cryoplug.training.average import WeightAverage
    from cryoplug.training.config import TrainConfig
    from cryoplug.training.distributed import Processes
    from cryoplug.training.progress import Event
    from cryoplug.training.run_folder import RunFolder
    from cryoplug.training.state import Position
    from cryoplug.workflows.train.request import TrainRequest


def following(request: TrainRequest) -> TrainRequest:
    """Give the request of a process that is not the first; it only computes, and writes nothing."""
    return dataclasses.replace(
        request, save=False, resume=False, overwrite=False, evaluate=False, require_better_than=None
    )


def say_nothing(_event: Event) -> None:
    """Ignore an event, in a process that is not the first."""


def processes_note(processes: Processes, config: TrainConfig) -> str:
    """Say how many processes train together; empty for one."""
    if processes.world == 1:
        return ""
    machines = len(set(processes.everyone(_machine())))
    where = "this machine" if machines == 1 else f"{machines} machines"
    step = f"{processes.world * config.batch_size} patches ({processes.world} x --batch-size {config.batch_size})"
    return f"{processes.world} processes on {where} train together; a step takes {step}"


def check_all_see_the_same(identity: dict[str, Any], processes: Processes) -> None:
    """Raise an error if processes have different sets, splits or first weights.

    Raises
    ------
    UsageError
        A process differs from the first one; the message says in what.
    """
    from cryoplug.training.config import differing_fields

    differing = differing_fields(processes.from_first(identity), identity)
    if differing:
        raise UsageError(
            f"{_machine()}: this machine differs from the first one ({'; '.join(differing)}); give all of them "
            "the same command, store and checkpoint"
        )


def of_a_step(processes: Processes, config: TrainConfig) -> dict[str, Any]:
    """Give the facts on which the last bits of a run with several processes depend."""
    return {PROCESSES: processes.world, PATCHES_A_STEP: processes.world * config.batch_size}


def state_of_all(
    folder: RunFolder | None,
    processes: Processes,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
    environment: dict[str, Any],
) -> tuple[Position, dict[str, Any] | None]:
    """Let the first process read the saved state, and put it into the network of every process.

    Returns
    -------
    tuple
        The position, and the saved environment; None for a new run. If a step now takes another number of patches, the
        position is that of a run that always took this number.

    Raises
    ------
    FormatError
        The state is damaged.
    """
    from cryoplug.training.state import Position, moved, unpack_state

    mine: tuple[Path | None, bytes | None] = (None, None)
    with processes.agreeing():
        if folder is not None:
            mine = folder.state_path, folder.read_state()
    path, payload = processes.from_first(mine)
    if path is None or payload is None:
        processes.copy_from_first([*module.parameters(), *module.buffers()])
        return Position(), None
    with processes.agreeing():
        position, before = unpack_state(payload, module, optimizer, path=path, average=average)
    now = environment[PATCHES_A_STEP]
    then = before.get(PATCHES_A_STEP, now)
    return position if then == now else moved(position, before=then, now=now), before


def _machine() -> str:
    import socket

    return socket.gethostname()
