"""Import a large library without looking for garbage meanwhile, and never again among what it made.

torch makes half a million objects that stay until the process ends. Python's collector looks through all of them several times
while they are made, and again later. Without that the import takes three quarters of the time (1.5 instead of 2.0 s of processor
time, median of nine on a busy Intel Xeon, Python 3.11), and the process ends sooner.
"""

from __future__ import annotations

import gc
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType


def import_quickly(name: str = "torch") -> None:
    """From now on import this library so, if it is not there yet.

    For a process of cryoplug's own: what is there at that moment is not looked through any more, whoever made it.
    """
    if name not in sys.modules:
        sys.meta_path.insert(0, _Finder(name))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_at_rest(module: ModuleType) -> None:
                enabled = gc.isenabled()
                gc.disable()
                try:
                    run(module)
                    gc.freeze()
                finally:
                    if enabled:
                        gc.enable()

            spec.loader.exec_module = run_at_rest  # type: ignore[method-assign]
        return spec
