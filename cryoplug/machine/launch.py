"""Which of several processes this is, where a launcher such as torchrun started more than one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryoplug.errors import UsageError

_MEETING_PLACE = ("MASTER_ADDR", "MASTER_PORT")
"""Where the processes of torchrun find one another: who sets `RANK` alone does not want them to."""


@dataclass(frozen=True)
class Launch:
    """One process among those of a run."""

    rank: int = 0
    """Its number, from 0."""
    world: int = 1
    """How many there are, on all machines."""
    local_rank: int = 0
    """Its number on this machine, from 0."""
    local_world: int = 1
    """How many there are on this machine."""
    node: int = 0
    """Number of the machine, from 0."""


def torchrun_launch(environment: Mapping[str, str] | None = None) -> Launch:
    """Return what torchrun said to this process; rank 0 of one when it did not start it.

    Parameters
    ----------
    environment
        None: that of the process.

    Raises
    ------
    UsageError
        The variables contradict each other.
    """
    environment = os.environ if environment is None else environment
    if not all(name in environment for name in ("RANK", "WORLD_SIZE", *_MEETING_PLACE)):
        return Launch()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")
    texts = [environment.get(name, fallback) for name, fallback in zip(names, ("", "", "0", "1", "0"), strict=True)]
    said = ", ".join(f"{name}={text}" for name, text in zip(names, texts, strict=True))
    if not all(text.isdecimal() for text in texts):
        raise UsageError(f"{said}: not all are numbers; start the processes with torchrun, or unset these variables")
    launch = Launch(*map(int, texts))
    if launch.rank >= launch.world or launch.local_rank >= launch.local_world or launch.local_world > launch.world:
        raise UsageError(f"{said}: contradict each other; start the processes with torchrun, or unset these variables")
    return launch
