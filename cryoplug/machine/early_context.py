"""Make the context of a GPU in a thread, while torch is still being imported; torch finds it made, and uses it."""

from __future__ import annotations

import ctypes
import sys
import threading

from cryoplug.machine.gpu_facts import DRIVER, torch_uses_cuda


def begin_context(device: str) -> threading.Thread | None:
    """Begin to make the context; the driver needs half a second for it, and no lock of Python's.

    Whatever fails here is left to torch, which says what is wrong.

    Parameters
    ----------
    device
        What ``--device`` takes.

    Returns
    -------
    threading.Thread | None
        The thread that makes it; None if torch is imported already, or will use no GPU.
    """
    if device == "cpu" or "torch" in sys.modules or not torch_uses_cuda():
        return None
    number = int(device.partition(":")[2] or 0)
    thread = threading.Thread(target=_make, args=(number,), name="cryoplug-context", daemon=True)
    thread.start()
    return thread


def _make(number: int) -> None:
    handle, context = ctypes.c_int(), ctypes.c_void_p()
    try:
        driver = ctypes.CDLL(DRIVER)
        if not driver.cuInit(0) and not driver.cuDeviceGet(ctypes.byref(handle), number):
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle)
    except (OSError, AttributeError):
        return
