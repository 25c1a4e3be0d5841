"""Begin the context of a GPU while Python is importing torch: the driver takes a while for it, and nothing of Python."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import threading
from pathlib import Path


def begin_context(device: str) -> threading.Thread | None:
    """Begin the context that torch will use, in a thread; whatever goes wrong, torch will say it better.

    Parameters
    ----------
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns
    -------
    Thread or None
        For tests; None where there is nothing to begin.
    """
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cuda") or not _torch_has_cuda():
        return None
    thread = threading.Thread(target=_retain, args=(int(number or 0),), name="cryoplug-context", daemon=True)
    thread.start()
    return thread


def _retain(number: int) -> None:
    """Keep the primary context of a GPU, which is the one that torch uses, until the process ends."""
    with contextlib.suppress(OSError, AttributeError):
        driver = ctypes.CDLL("libcuda.so.1")
        device, context = ctypes.c_int(), ctypes.c_void_p()
        if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), number) == 0:
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)


def _torch_has_cuda() -> bool:
    """Tell from its files whether torch can use a GPU; it is not imported."""
    found = importlib.util.find_spec("torch")
    return (
        found is not None and found.origin is not None and (Path(found.origin).parent / "lib/libtorch_cuda.so").exists()
    )
