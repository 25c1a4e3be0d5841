"""Copies to a GPU beside its arithmetic: pinned buffers that reader threads fill, and one stream that empties them."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Mark:
    """A place in the order of the device's work; None on the CPU, where everything is done at once."""

    event: torch.cuda.Event | None


@dataclass(frozen=True)
class _Buffer:
    pixels: torch.Tensor
    emptied: Mark


class Lane:
    """Carries pixels from host threads to a device.

    Parameters
    ----------
    device
        The target. With the CPU, copies are done at once: so the loaders of a GPU are tested without one.
    buffers
        How many copies may be under way.
    pixels
        Size of each buffer.
    dtype
        Of the pixels.
    """

    def __init__(self, device: torch.device, *, buffers: int, pixels: int, dtype: torch.dtype) -> None:
        self._device = device
        self._on_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._on_gpu else None
        self._lock = threading.Lock()
        self._free: queue.SimpleQueue[_Buffer] = queue.SimpleQueue()
        for _ in range(buffers):
            self._free.put(_Buffer(torch.empty(pixels, dtype=dtype, pin_memory=self._on_gpu), self.mark()))

    def mark(self) -> Mark:
        """Make a mark that stands for nothing yet."""
        return Mark(torch.cuda.Event() if self._on_gpu else None)

    @contextlib.contextmanager
    def buffer(self, target: torch.Tensor, copied: Mark) -> Iterator[torch.Tensor]:
        """Give a pinned buffer of the size of `target`; at the end of the block its copy is begun.

        Parameters
        ----------
        target
            Contiguous, on the device.
        copied
            Set after this copy: set by several copies, it stands for all of them.
        """
        buffer = self._free.get()
        try:
            if buffer.emptied.event is not None:
                buffer.emptied.event.synchronize()
            pixels = buffer.pixels[: target.numel()]
            yield pixels
            with self._lock, torch.cuda.stream(self._stream):
                target.view(-1).copy_(pixels, non_blocking=True)
                for mark in (copied, buffer.emptied):
                    if mark.event is not None:
                        mark.event.record(self._stream)
        finally:
            self._free.put(buffer)

    def copies_wait_for(self, mark: Mark) -> None:
        """Let copies begun from now on wait on the device for what `mark` stands for."""
        if mark.event is not None and self._stream is not None:
            self._stream.wait_event(mark.event)

    def arithmetic_waits_for(self, mark: Mark) -> None:
        """Let arithmetic launched from now on wait on the device for what `mark` stands for."""
        if mark.event is not None:
            torch.cuda.current_stream(self._device).wait_event(mark.event)

    def set_after_arithmetic(self, mark: Mark) -> None:
        """Let `mark` stand for all arithmetic launched so far."""
        if mark.event is not None:
            mark.event.record(torch.cuda.current_stream(self._device))
