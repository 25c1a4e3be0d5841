"""Record a computation on a GPU once and replay it; a replay costs the host almost no time."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Hashable, Iterator

import torch

RECORDED_AFTER = 3
"""Computations that are alike, in a row: before that, recording costs more than it saves."""

Compute = Callable[..., tuple[torch.Tensor, ...]]


class Recorded:
    """Calls functions; from the fourth call of one kind on, it replays a recording instead of launching each kernel."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._seen = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self.refused = ""
        """Reason why the last recording failed; empty: none failed."""
        self._inputs: tuple[torch.Tensor, ...] = ()
        self._outputs: tuple[torch.Tensor, ...] = ()

    def __call__(self, key: Hashable, compute: Compute, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute; the results are new tensors.

        Parameters
        ----------
        key
            Identifies a computation: equal keys mean the same steps, shapes of inputs, and memory apart from inputs and results.
        compute
            Maps input tensors on a GPU to result tensors; it neither waits for the device nor copies from or to it.
        inputs
            Tensors that change from call to call.
        """
        if key != self._key:
            self.forget()
            self._key = key
        self._seen += 1
        if self._seen == RECORDED_AFTER + 1:
            # Without the memory for it, or with a driver that refuses, kernels are launched as before.
            try:
                with torch.inference_mode():
                    self._record(compute, inputs)
            except RuntimeError as error:
                self.refused = str(error)
        if self._graph is None:
            return compute(*inputs)
        with torch.inference_mode():
            for kept, given in zip(self._inputs, inputs, strict=True):
                kept.copy_(given)
        self._graph.replay()
        return tuple(made.clone() for made in self._outputs)

    def forget(self) -> None:
        """Free the memory of the recordings."""
        self._key, self._seen, self._graph = None, 0, None
        self._inputs = self._outputs = ()

    def _record(self, compute: Compute, inputs: tuple[torch.Tensor, ...]) -> None:
        kept, graph = tuple(given.clone() for given in inputs), torch.cuda.CUDAGraph()
        # Other threads go on meanwhile, which a recording that minds all threads would refuse.
        with collector_at_rest(), torch.cuda.graph(graph, capture_error_mode="thread_local"):
            made = compute(*kept)
        self._inputs, self._outputs, self._graph = kept, made, graph


@contextlib.contextmanager
def collector_at_rest() -> Iterator[None]:
    """Switch off garbage collection: if an old recording were freed while a new one is made, it would spoil the new one."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
