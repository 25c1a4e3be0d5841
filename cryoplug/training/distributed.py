"""Several processes that train one network together: how they share the work, and what they exchange.

torchrun starts one process for each GPU, or for each part of the CPU's cores. All hold the same weights. Each computes its
own rows of every batch. Gradients are averaged over all processes before the step, so weights stay the same, bit for bit.
Only the first process prints and writes. Why gradients are averaged here and not by torch's DDP:
docs/decisions/0032-several-processes.md.

`ALONE` is a run of one process. It has the same methods, which do nothing, so the training loop needs no special case.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import distributed

from cryoplug.errors import CryoplugError, DeviceError, OtherProcessError, UsageError
from cryoplug.machine.devices import resolve_device
from cryoplug.machine.launch import Launch, torchrun_launch

PATIENCE = timedelta(minutes=30)
"""Longest wait for another process; the first one may be writing to a slow disk."""

Anything = TypeVar("Anything")


@dataclass(frozen=True)
class Rows:
    """The rows of a batch that one process computes."""

    own: slice
    """Rows of this process, at least one. With fewer rows than processes, it borrows a row, whose loss does not count."""
    whole: int
    """Rows of the whole batch."""
    weight: float = 1.0
    """Weight of the mean over the own rows in the mean over the whole batch; 0 if the row is borrowed."""


class Processes:
    """The processes of a run; this class is the run of one.

    Parameters
    ----------
    launch
        Place of this process among them.
    """

    def __init__(self, launch: Launch | None = None) -> None:
        self.launch = launch or Launch()

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.launch.world

    @property
    def first(self) -> bool:
        """Whether this is the first process, which prints and writes."""
        return self.launch.rank == 0

    def rows(self, whole: int) -> Rows:
        """Divide the rows of a batch evenly, in their order; the first processes may get one more."""
        rank, world = self.launch.rank, self.world
        each, more = divmod(whole, world)
        begin, count = rank * each + min(rank, more), each + (rank < more)
        if not count:
            return Rows(slice(0, 1), whole, 0.0)
        return Rows(slice(begin, begin + count), whole, count / whole)

    def average(self, loss: torch.Tensor, gradients: Sequence[torch.Tensor], weight: float | torch.Tensor) -> Any:
        """Average the gradients over the whole batch, in place.

        Parameters
        ----------
        loss
            Mean loss of the own rows.
        gradients
            Gradients of that loss by every parameter.
        weight
            Weight of the own rows, from `Rows`.

        Returns
        -------
        torch.Tensor
            The mean loss of the whole batch.
        """
        return loss

    def total(self, values: np.ndarray) -> np.ndarray:
        """Add up arrays of all processes, float64."""
        return values

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """Give the largest of each number over all processes."""
        return list(numbers)

    def from_first(self, value: Anything) -> Anything:
        """Give what the first process has."""
        return value

    def everyone(self, value: Anything) -> list[Anything]:
        """Give what each process has."""
        return [value]

    def copy_from_first(self, tensors: Sequence[torch.Tensor]) -> None:
        """Overwrite tensors by those of the first process."""

    @contextlib.contextmanager
    def agreeing(self) -> Iterator[None]:
        """Make a block succeed in all processes or in none; the first process reports the error, wherever it occurred.

        In the block, do everything that may fail before any exchange with the others, because a process that failed does
        not answer.

        Raises
        ------
        CryoplugError
            In the first process: the error of any process.
        OtherProcessError
            In the other processes.
        """
        yield

    def said_by_first(self, error: CryoplugError) -> CryoplugError:
        """Give the error to raise if all processes have the same one, so that only the first prints it."""
        return error


ALONE = Processes()


class TorchProcesses(Processes):
    """The processes that torchrun started; `torch.distributed` is ready.

    Parameters
    ----------
    launch
        Place of this process among them.
    """

    def average(self, loss: torch.Tensor, gradients: Sequence[torch.Tensor], weight: float | torch.Tensor) -> Any:
        """Average the gradients over the whole batch, in place, and give its mean loss."""
        numbers = [_in_memory_order(gradient) for gradient in gradients]
        flat = torch.cat([loss.detach().float().reshape(1), *numbers])
        flat.mul_(weight)
        with _peers():
            distributed.all_reduce(flat)
        whole, *parts = flat.split([1, *(part.numel() for part in numbers)])
        torch._foreach_copy_(numbers, parts)
        for gradient, part in zip(gradients, numbers, strict=True):
            if part.data_ptr() != gradient.data_ptr():
                gradient.copy_(part.view(gradient.shape))
        return whole.reshape(())

    def total(self, values: np.ndarray) -> np.ndarray:
        """Add up arrays of all processes, float64."""
        tensor = torch.from_numpy(np.array(values, np.float64))
        with _peers():
            distributed.all_reduce(tensor)
        return tensor.numpy()

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """Give the largest of each number over all processes."""
        tensor = torch.tensor(list(numbers), dtype=torch.int64)
        with _peers():
            distributed.all_reduce(tensor, op=distributed.ReduceOp.MAX)
        return [int(number) for number in tensor.tolist()]

    def from_first(self, value: Anything) -> Anything:
        """Give what the first process has."""
        held = [value]
        with _peers():
            distributed.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        return held[0]

    def everyone(self, value: Anything) -> list[Anything]:
        """Give what each process has."""
        # Each in its turn: `all_gather_object` would take the way over the GPU.
        values = []
        for rank in range(self.world):
            held = [value]
            with _peers():
                distributed.broadcast_object_list(held, src=rank, device=torch.device("cpu"))
            values.append(held[0])
        return values

    def copy_from_first(self, tensors: Sequence[torch.Tensor]) -> None:
        """Overwrite tensors by those of the first process."""
        with _peers(), torch.no_grad():
            for tensor in tensors:
                there = tensor.detach().contiguous()
                distributed.broadcast(there, src=0)
                tensor.copy_(there)

    @contextlib.contextmanager
    def agreeing(self) -> Iterator[None]:
        """Make a block succeed in all processes or in none."""
        mine: CryoplugError | None = None
        try:
            yield
        except CryoplugError as error:
            mine = error
        found = self.everyone(None if mine is None else (mine.exit_code, str(mine)))
        failed = [(rank, met) for rank, met in enumerate(found) if met is not None]
        if not failed:
            return
        rank, (exit_code, text) = failed[0]
        if not self.first:
            raise OtherProcessError(text, exit_code, said=True) from mine
        if mine is not None:
            raise mine
        raise OtherProcessError(f"process {rank} of {self.world}: {text}", exit_code)

    def said_by_first(self, error: CryoplugError) -> CryoplugError:
        """Give the error to raise if all processes have the same one."""
        return error if self.first else OtherProcessError(str(error), error.exit_code, said=True)


@contextlib.contextmanager
def open_processes(device: str) -> Iterator[tuple[Processes, torch.device]]:
    """Connect to the other processes, if torchrun started any, and give the device of this one.

    Parameters
    ----------
    device
        ``--device``; ``auto`` and ``cuda`` give each process of a machine a GPU of its own.

    Raises
    ------
    DeviceError, UsageError
        There are fewer GPUs than processes, or one GPU was named for all of them.
    """
    launch = torchrun_launch()
    try:
        chosen = _device_of(launch, device)
    except (DeviceError, UsageError) as error:
        if launch.local_rank == 0:
            raise
        # All processes of a machine meet this one.
        raise OtherProcessError(str(error), error.exit_code, said=True) from error
    if launch.world == 1:
        yield ALONE, chosen
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    # What lies in host memory goes by gloo, so that a word between processes never waits for a GPU.
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    with _peers():
        store = _meet(launch)
        distributed.init_process_group(
            backend, store=store, rank=launch.rank, world_size=launch.world, timeout=PATIENCE
        )
    in_peace = False
    try:
        processes = TorchProcesses(launch)
        with processes.agreeing():
            kinds = processes.everyone(chosen.type)
            if len(set(kinds)) > 1:
                raise DeviceError(
                    f"process 0 computes on {kinds[0]}, process {_odd_one(kinds)} on another device; give --device cpu, "
                    "or start processes on machines with GPUs alone"
                )
        yield processes, chosen
        in_peace = True
    finally:
        # NCCL waits for the end of every recorded step that it has a part in. After an error its frames still hold one: then
        # the end of the process is the end of all; else at most a circle of references does.
        if in_peace or chosen.type != "cuda":
            gc.collect()
            with contextlib.suppress(RuntimeError):
                distributed.destroy_process_group()


def cores_of_each(launch: Launch) -> int:
    """Return the CPU cores of this machine that each of its processes may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return max(1, cores // launch.local_world)


def _device_of(launch: Launch, name: str) -> torch.device:
    if launch.local_world == 1 or name == "cpu":
        return resolve_device(name)
    if name not in ("auto", "cuda"):
        raise UsageError(
            f"--device {name}, but {launch.local_world} processes run on this machine; give --device cuda for a GPU each, or cpu"
        )
    chosen = resolve_device(name)
    if chosen.type == "cpu":
        return chosen
    there = torch.cuda.device_count()
    if there < launch.local_world:
        raise DeviceError(
            f"{launch.local_world} processes on this machine, but {there} GPU{'s' * (there > 1)}; "
            f"start torchrun with --nproc-per-node {there}, or give --device cpu"
        )
    return torch.device("cuda", launch.local_rank)


def _meet(launch: Launch) -> distributed.Store:
    """Connect to the other processes at the address from torchrun, and give a store of keys that nobody used before.

    When torchrun starts killed processes again, it keeps its store, with the addresses of the dead processes in it; and the
    number of restarts may differ between machines. So the first process writes a random word, and each of the others answers
    with its own word. The first one repeats all answers. A process that finds its own word there knows that all are alive.
    """
    store, _, _ = next(distributed.rendezvous("env://", launch.rank, launch.world, timeout=PATIENCE))
    mine, end = uuid.uuid4().hex, time.monotonic() + PATIENCE.total_seconds()

    def read(key: str) -> list[str]:
        if time.monotonic() > end:
            raise RuntimeError("not all processes came")
        return store.get(key).decode().split() if store.check([key]) else []

    def met() -> str:
        if launch.rank == 0:
            answers = [read(f"answer {rank}") for rank in range(1, launch.world)]
            if any(answer[:1] != [mine] for answer in answers):
                return ""
            store.set("all", " ".join([mine, *(answer[1] for answer in answers)]))
            return mine
        word, everyone = read("word"), read("all")
        if word and word[0] not in answered:
            answered.append(word[0])
            store.set(f"answer {launch.rank}", f"{word[0]} {mine}")
        return everyone[0] if mine in everyone else ""

    answered: list[str] = []
    if launch.rank == 0:
        store.set("word", mine)
    while not (common := met()):
        time.sleep(0.02)
    return distributed.PrefixStore(common, store)


def _in_memory_order(gradient: torch.Tensor) -> torch.Tensor:
    """Give the numbers of a gradient in one row, in the order of memory, which is the same in all processes.

    Copying them into another order would need another kernel for each gradient, before and after.
    """
    dense = gradient.is_contiguous() or gradient.is_contiguous(memory_format=torch.channels_last)
    return gradient.as_strided((gradient.numel(),), (1,)) if dense else gradient.reshape(-1)


def _odd_one(kinds: Sequence[str]) -> int:
    return next(rank for rank, kind in enumerate(kinds) if kind != kinds[0])


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    """Say clearly that another process is gone, because torch only says that a connection was closed."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except RuntimeError as error:
        first = os.environ.get("RANK", "0") == "0"
        raise OtherProcessError(
            f"another process of this run has ended or cannot be reached ({str(error).splitlines()[0][:160]}); "
            "its own message is above; the same command goes on from the state that was saved last",
            said=not first,
        ) from error
