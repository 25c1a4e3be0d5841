"""Facts about a GPU from NVIDIA's driver itself, without torch, whose import takes seconds."""

from __future__ import annotations

import ctypes
import importlib.util
from dataclasses import dataclass
from pathlib import Path

DRIVER = "libcuda.so.1"
"""NVIDIA's driver, for ctypes."""
_COMPUTE_MODE = 20
"""The driver's number for the question how many processes may use a GPU; the answer 0 is: as many as like."""


@dataclass(frozen=True)
class GpuFacts:
    """What must be known before several processes share a GPU."""

    memory_bytes: int
    """All of its memory, also what others use now."""
    for_several: bool
    """Whether several processes may use it at a time; clusters may forbid that."""


def gpu_facts(number: int) -> GpuFacts | None:
    """Look at a GPU; opens no context on it.

    Parameters
    ----------
    number
        From 0, among those that CUDA_VISIBLE_DEVICES shows.

    Returns
    -------
    GpuFacts | None
        None if there is no such GPU, no driver, or a torch that does not use it.
    """
    if not torch_uses_cuda():
        return None
    device, size_bytes, mode = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_int()
    try:
        driver = ctypes.CDLL(DRIVER)
        failed = (
            driver.cuInit(0)
            or driver.cuDeviceGet(ctypes.byref(device), number)
            or driver.cuDeviceTotalMem_v2(ctypes.byref(size_bytes), device)
            or driver.cuDeviceGetAttribute(ctypes.byref(mode), _COMPUTE_MODE, device)
        )
    except (OSError, AttributeError):
        return None
    return None if failed else GpuFacts(size_bytes.value, mode.value == 0)


def torch_uses_cuda() -> bool:
    """Say whether the torch that is installed is one for NVIDIA's GPUs, without importing it."""
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return False
    places = [] if spec is None else spec.submodule_search_locations or []
    return any((Path(place) / "lib" / "libtorch_cuda.so").exists() for place in places)
