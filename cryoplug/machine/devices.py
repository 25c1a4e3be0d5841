"""Which device a name means, and what its errors mean: the only parser of devices, the only test for lack of memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cryoplug.errors import DeviceError, UsageError, not_allowed

if TYPE_CHECKING:
    import torch

DEVICES = "auto, cpu, cuda, cuda:N"
"""Allowed values of ``--device``, for messages."""
_MOST_THREADS = 1024
"""Largest allowed number of threads: more than any machine has cores. With 100,000 no program gets a thread any more."""
_NO_ROOM = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED", "CUFFT_ALLOC_FAILED", "CUFFT_INTERNAL_ERROR")
"""Texts of CUDA's errors for lack of memory; the last one is that of cuFFT if it finds no room for a plan."""


class OutOfDeviceMemory(Exception):
    """The device has no memory left; smaller tiles may fit."""


class Interrupted(Exception):
    """A computation was ended because its result is not wanted any more."""


def device_name(device: str, gpu: int | None) -> str:
    """Make one name of a device from ``--device`` and ``--gpu``.

    Parameters
    ----------
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    gpu
        Number of a GPU, from 0, among those that CUDA_VISIBLE_DEVICES shows; None if the option was not given.

    Raises
    ------
    UsageError
        They contradict each other.
    """
    if gpu is None:
        return device
    if gpu < 0:
        raise UsageError(f"--gpu {gpu} (allowed: 0 or more)")
    if device not in ("auto", "cuda", f"cuda:{gpu}"):
        raise UsageError(f"--gpu {gpu} and --device {device} name two devices; give one of them")
    return f"cuda:{gpu}"


def device_problems(name: str) -> Iterator[str]:
    """Say what is wrong with the name of a device, in the words of the command line; not whether the device exists."""
    kind, colon, number = name.partition(":")
    numbered = kind == "cuda" and number.isascii() and number.isdigit()
    if name not in ("auto", "cpu", "cuda") and not (colon and numbered):
        yield not_allowed("--device", name, DEVICES)


def thread_problems(threads: int) -> Iterator[str]:
    """Say what is wrong with a number of threads, in the words of the command line."""
    if not 0 <= threads <= _MOST_THREADS:
        yield not_allowed("--threads", threads, f"0 for all cores, or up to {_MOST_THREADS}")


def resolve_device(name: str) -> torch.device:
    """Give the device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` means on this machine.

    Raises
    ------
    DeviceError
        A device was asked for by name, and it is not there.
    UsageError
        The name is not one of these.
    """
    import torch

    for text in device_problems(name):
        raise UsageError(text)
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    number = name.partition(":")[2]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(number or 0)
    if index >= count:
        there = f"GPUs 0 to {count - 1} are" if count > 1 else "only GPU 0 is"
        there = there if count else "no GPU that this PyTorch can use is"
        raise DeviceError(f"--device {name}: {there} there{_visible()}; give --device auto or cpu, or check nvidia-smi")
    return torch.device("cuda", index)


def resolved_name(name: str) -> str:
    """Name the device that `resolve_device` gives; torch, whose import takes seconds, is used only if it may be a GPU."""
    return name if name == "cpu" else str(resolve_device(name))


def hidden_gpu_note(device: torch.device) -> str:
    """Say that ``auto`` took the CPU although the environment names a GPU; empty otherwise."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").strip()
    if device.type == "cpu" and named not in ("", "-1", "NoDevFiles"):
        return f"CUDA_VISIBLE_DEVICES={named} names a GPU, but PyTorch finds none; computing on the CPU"
    return ""


def only(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Make a GPU the current one while the block runs; otherwise some calls of torch open a context on GPU 0."""
    import torch

    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def memory_for_tensors(device: torch.device) -> int:
    """Give the memory of a GPU that new tensors can have, in bytes: what is free, and what torch keeps for later tensors."""
    import torch

    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def free_cached_memory(device: torch.device) -> None:
    """Give the memory that torch keeps for later tensors back to the GPU."""
    import torch

    if device.type == "cuda":
        with only(device):
            torch.cuda.empty_cache()


@contextlib.contextmanager
def device_errors() -> Iterator[None]:
    """Turn torch's errors about memory and devices into cryoplug's.

    Raises
    ------
    OutOfDeviceMemory
        There is no memory left; the device itself works.
    DeviceError
        The device failed.
    """
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        # What follows is advice on the allocator's settings.
        raise OutOfDeviceMemory(str(error).split("\n")[0].split(". Including")[0] or "out of memory") from error
    except RuntimeError as error:
        text = str(error)
        first_line = text.split("\n")[0]
        if "can't allocate memory" in text:
            raise OutOfDeviceMemory("the system gave no memory") from error
        # The libraries below torch say it in their own way when they find no room for a workspace.
        if any(words in text for words in _NO_ROOM):
            raise OutOfDeviceMemory(first_line) from error
        if "CUDA" in text or "CUBLAS" in text or "cuFFT" in text:
            raise DeviceError(f"the GPU failed ({first_line}); check nvidia-smi, run again") from error
        raise


def _visible() -> str:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if named is None else f" (CUDA_VISIBLE_DEVICES={named})"
