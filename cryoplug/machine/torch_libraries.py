"""Load torch's shared libraries beside other imports: that takes a part of a second, and does not need Python's lock."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import sys
import threading
from pathlib import Path

_LIBRARIES = ("libtorch_global_deps.so", "libtorch_python.so")
"""In this order torch loads them, with all that they need; the first one so that all others see what it brings."""


def load_ahead() -> None:
    """Begin to load torch's libraries in a thread, so that a later ``import torch`` finds them loaded.

    Call it when torch is surely needed, before other modules are imported. Where it cannot be done, nothing happens: torch
    then loads its libraries itself, and says what is wrong with them.
    """
    if "torch" not in sys.modules and len(os.sched_getaffinity(0)) > 1:
        # No daemon: a process that ends at once because of a mistake must not end while a library is half loaded.
        threading.Thread(target=_load, name="cryoplug-libraries", daemon=False).start()


def _load() -> None:
    with contextlib.suppress(OSError, ValueError, ImportError):
        spec = importlib.util.find_spec("torch")
        if spec is None or not spec.submodule_search_locations:
            return
        folder = Path(spec.submodule_search_locations[0]) / "lib"
        for name in _LIBRARIES:
            ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL if name == _LIBRARIES[0] else ctypes.DEFAULT_MODE)
