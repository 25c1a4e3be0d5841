"""When do the stages of `cryoplug denoise` begin and end, each in its thread? Imported by programs that benchmarks start.

`watch` must come first: it waits until a module is imported, times that import, and replaces functions of the module by ones
that note when they are called. So the command imports what it needs when it needs it, as without a watch.
"""

from __future__ import annotations

import functools
import importlib.machinery
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

STAGES: Mapping[str, Mapping[str, str]] = {
    "torch": {"": "import of torch"},
    "triton": {"": "import of triton"},
    "triton.runtime.cache": {"triton_key": "triton reads its own library"},
    "cryoplug.machine.early_context": {"_make": "a thread: the GPU's context"},
    "cryoplug.machine.pinned": {"PinnedBuffers.take": "memory for copies is locked, or waited for"},
    "cryoplug.kernels.block_unet": {"BlockUNet.__init__": "weights: matrices for the kernels"},
    "cryoplug.models.checkpoint": {"load_checkpoint": "weights: reading"},
    "cryoplug.inference.network.fastest": {"Network.__init__": "weights: the network, on its device"},
    "cryoplug.workflows.denoise.work": {
        "Work.claim": "a reader: claim",
        "Work.begin": "a writer: record before",
        "Work.finish": "a writer: preview, record, journal, claim",
    },
    "cryoplug.inference.whole.pipeline": {
        "_Run._fill": "a reader: reading",
        "_Run._compute_one": "the launching thread: all",
        "_Run._hand_on": "the launching thread: waiting for the device",
        "_Run._write_one": "a writer: writing",
    },
    "cryoplug.inference.whole.preparing": {
        "Preparer.prepare": "a reader: all on the device",
        "repair": "a reader: of these, hot pixels",
    },
    "cryoplug.inference.whole.computing": {"Computer.compute": "the launching thread: launching"},
    # Both in an earlier version.
    "cryoplug.inference.whole.images": {
        "WholeImages.prepare": "a reader: all on the device",
        "repair": "a reader: of these, hot pixels",
        "WholeImages.compute": "the launching thread: launching",
    },
    "cryoplug.workflows.denoise.previews": {"Previews.make": "a writer: preview"},
    "cryoplug.workflows.denoise.page": {"RunPage.finish": "at the end: the page"},
}
"""By module: its functions and methods, and what they do. An empty name is the import of the module."""


@dataclass(frozen=True)
class Span:
    """Something that was done once."""

    label: str
    """What."""
    begin: float
    """When it began, by `time.time`."""
    wall_s: float
    """How long it took."""
    cpu_s: float
    """Processor time of its thread; waiting for the device counts, too."""


@dataclass
class Watch:
    """What was done so far."""

    spans: list[Span] = field(default_factory=list)
    """In the order of their ends."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def timed(self, label: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Give a function that does `work` and notes it."""

        @functools.wraps(work)
        def noted(*given: Any, **named: Any) -> Any:
            begin, wall, cpu = time.time(), time.perf_counter(), time.thread_time()
            try:
                return work(*given, **named)
            finally:
                span = Span(label, begin, time.perf_counter() - wall, time.thread_time() - cpu)
                with self._lock:
                    self.spans.append(span)

        return noted

    def sums(self) -> dict[str, tuple[float, float]]:
        """Give the seconds by the clock and of processor time by label, over all calls and threads."""
        found: dict[str, tuple[float, float]] = {}
        for span in list(self.spans):
            wall, cpu = found.get(span.label, (0.0, 0.0))
            found[span.label] = wall + span.wall_s, cpu + span.cpu_s
        return found


def watch(stages: Mapping[str, Mapping[str, str]] = STAGES) -> Watch:
    """Watch what is imported from now on; an older checkout may lack some of the functions."""
    seen = Watch()
    sys.meta_path.insert(0, _Finder(seen, stages))
    return seen


class _Finder:
    def __init__(self, seen: Watch, stages: Mapping[str, Mapping[str, str]]) -> None:
        self._seen, self._stages = seen, stages

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(name, path, target) if name in self._stages else None
        if spec is None or spec.loader is None:
            return None
        functions, loader = self._stages[name], spec.loader
        run: Callable[[ModuleType], None] = loader.exec_module

        def run_and_watch(module: ModuleType) -> None:
            label = functions.get("")
            (self._seen.timed(label, run) if label else run)(module)
            for function, what in functions.items():
                *classes, last = function.split(".")
                owner: Any = module
                for inner in classes:
                    owner = getattr(owner, inner, None)
                if last and hasattr(owner, last):
                    setattr(owner, last, self._seen.timed(what, getattr(owner, last)))

        loader.exec_module = run_and_watch  # type: ignore[method-assign]
        return spec
