"""Copies to a GPU while it computes: reader threads fill pinned buffers, and one stream copies them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Mark:
    """A point in the order of the device's work; None on the CPU, where everything is done at once."""

    event: torch.cuda.Event | None


@dataclass(frozen=True)
class _Buffer:
    pixels: torch.Tensor
    emptied: Mark


class CopyStream:
    """Carries pixels from host threads to a device.

    Parameters
    ----------
    device
        The target. On the CPU copies are done at once, so the loaders of a GPU can be tested without one.
    buffers
        How many copies may be under way at a time.
    pixels
        Size of each buffer.
    dtype
        Type of the pixels.
    """

    def __init__(self, device: torch.device, *, buffers: int, pixels: int, dtype: torch.dtype) -> None:
        self._device = device
        self._on_gpu = device.type == "cuda"
        # Of another priority than the streams on which steps are recorded: torch gives the same few streams out again.
        self._stream = torch.cuda.Stream(device, priority=-1) if self._on_gpu else None
        self._lock = threading.Lock()
        self._free: queue.SimpleQueue[_Buffer] = queue.SimpleQueue()
        for _ in range(buffers):
            self._free.put(_Buffer(torch.empty(pixels, dtype=dtype, pin_memory=self._on_gpu), self.mark()))

    def mark(self) -> Mark:
        """Make a mark that is not set yet."""
        return Mark(torch.cuda.Event() if self._on_gpu else None)

    def carry(self, targets: Sequence[torch.Tensor], read: Callable[[np.ndarray], None], copied: Mark) -> None:
        """Read into a pinned buffer and begin to copy it; for the threads of the loader.

        Parameters
        ----------
        targets
            Contiguous tensors on the device, together no larger than a buffer; each gets one part of it, in order.
        read
            Fills a flat array with the pixels of all of them.
        copied
            Mark to set after these copies; if several calls set it, it covers the copies of all.
        """
        buffer = self._free.get()
        try:
            if buffer.emptied.event is not None:
                buffer.emptied.event.synchronize()
            sizes = [target.numel() for target in targets]
            pixels = buffer.pixels[: sum(sizes)]
            read(pixels.numpy())
            with self._lock, torch.cuda.stream(self._stream):
                for target, part in zip(targets, pixels.split(sizes), strict=True):
                    target.view(-1).copy_(part, non_blocking=True)
                for mark in (copied, buffer.emptied):
                    if mark.event is not None:
                        mark.event.record(self._stream)
        finally:
            self._free.put(buffer)

    def copies_wait_for(self, mark: Mark) -> None:
        """Make copies that begin from now on wait, on the device, for the work before `mark`."""
        if mark.event is not None and self._stream is not None:
            self._stream.wait_event(mark.event)

    def arithmetic_waits_for(self, mark: Mark) -> None:
        """Make arithmetic that is launched from now on wait, on the device, for the work before `mark`."""
        if mark.event is not None:
            torch.cuda.current_stream(self._device).wait_event(mark.event)

    def set_after_arithmetic(self, mark: Mark) -> None:
        """Set `mark` after all arithmetic launched so far."""
        if mark.event is not None:
            mark.event.record(torch.cuda.current_stream(self._device))
