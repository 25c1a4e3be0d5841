"""Which of several processes this is, if a launcher such as torchrun started more than one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryoplug.core.shard import Shard
from cryoplug.errors import UsageError

_MEETING_PLACE = ("MASTER_ADDR", "MASTER_PORT")
"""Variables that tell torchrun's processes where to meet; with `RANK` but without these, processes do not work together."""


@dataclass(frozen=True)
class Launch:
    """One process among those of a run."""

    rank: int = 0
    """Number of this process, from 0."""
    world: int = 1
    """Number of processes, on all machines together."""
    local_rank: int = 0
    """Number of this process on its machine, from 0."""
    local_world: int = 1
    """Number of processes on this machine."""
    node: int = 0
    """Number of this machine, from 0."""


def torchrun_launch(environment: Mapping[str, str] | None = None) -> Launch:
    """Return this process's place among those of torchrun; rank 0 of 1 if torchrun did not start it.

    Parameters
    ----------
    environment
        Environment variables; None takes those of this process.

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


def chosen_shard(asked: Shard | None, *, watch: bool, note: Callable[[str], None]) -> Shard | None:
    """Return the part of a list to work on: what the user asked for, else what a launcher says; None for the whole list.

    Parameters
    ----------
    asked
        Part that the user asked for; 0/1 is the whole list, whatever a launcher says.
    watch
        Whether the run waits for new files. Then the launcher does not count, because watching commands share a folder
        by themselves.
    note
        Called with a sentence when a launcher decides.
    """
    if asked is None and not watch and (found := shard_of_launcher()) is not None:
        asked, source = found
        note(f"shard {asked} of the micrographs, because {source} says so; --shard 0/1 does all of them")
    return None if asked is not None and asked.count == 1 else asked


def shard_of_launcher(environment: Mapping[str, str] | None = None) -> tuple[Shard, str] | None:
    """Return the part of a list that Slurm or torchrun gives this process, and the variable that says so.

    None if no variable says so, or there is only one process. In the batch script of a Slurm job these two mean nothing:
    ``SLURM_PROCID`` is 0 and ``SLURM_NTASKS`` the number that was asked for, although the script runs once.

    Parameters
    ----------
    environment
        Environment variables; None takes those of this process.

    Raises
    ------
    UsageError
        The variables are not numbers, or they contradict each other.
    """
    environment = os.environ if environment is None else environment
    in_batch_script = "SLURM_JOB_ID" in environment and "SLURM_STEP_ID" not in environment
    sources = [("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"), ("RANK", "WORLD_SIZE")]
    if not in_batch_script:
        sources.insert(1, ("SLURM_PROCID", "SLURM_NTASKS"))
    for mine, all_of_them in sources:
        if mine not in environment or all_of_them not in environment:
            continue
        texts = [environment[mine], environment[all_of_them], environment.get("SLURM_ARRAY_TASK_MIN", "0")]
        texts.append(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
        said = f"{mine}={texts[0]}, {all_of_them}={texts[1]}"
        if not all(text.isdecimal() for text in texts):
            raise UsageError(f"{said}: not all are numbers; give --shard I/N, or unset these variables")
        number, count, least, step = map(int, texts)
        index = (number - least) // max(1, step) if mine == "SLURM_ARRAY_TASK_ID" else number
        if count < 1 or not 0 <= index < count:
            raise UsageError(f"{said}: contradict each other; give --shard I/N, or unset these variables")
        if count > 1:
            return Shard(index, count), mine
    return None
