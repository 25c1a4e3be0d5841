"""Load the shared libraries of torch and Triton beside other imports: it takes a part of a second, without Python's lock."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path


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
        for folder in _folders_of("torch"):
            libraries = folder / "lib"
            # As torch does it: the first one brings what all others must see.
            ctypes.CDLL(str(libraries / "libtorch_global_deps.so"), mode=ctypes.RTLD_GLOBAL)
            ctypes.CDLL(str(libraries / "libtorch_python.so"))
            if (libraries / "libtorch_cuda.so").exists():
                for triton in _folders_of("triton"):
                    ctypes.CDLL(str(triton / "_C" / "libtriton.so"))


def _folders_of(package: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.submodule_search_locations:
        yield Path(spec.submodule_search_locations[0])
