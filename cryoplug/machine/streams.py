"""Streams of a GPU: the work of a thread runs beside that of the others, and copies run beside arithmetic.

torch begins with one stream. There, a copy of 67 MB keeps the whole GPU waiting for 1.2 ms, and a thread that reads back a
number waits for all work that other threads queued before. On the CPU there are no streams, and nothing is done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class QueuedWork:
    """Marks a moment in the work of one stream: everything that was queued before it."""

    event: torch.cuda.Event | None = None
    """Event on the stream; None on the CPU, where work is done immediately."""

    def wait(self) -> None:
        """Wait, on the host, until this work is done."""
        if self.event is not None:
            self.event.synchronize()

    def hand_over(self, *tensors: torch.Tensor | None) -> None:
        """Make the current stream wait for this work before it uses the given tensors of the other stream."""
        if self.event is None:
            return
        stream = torch.cuda.current_stream()
        stream.wait_event(self.event)
        for tensor in tensors:
            if tensor is not None:
                # Its memory is not given out again before this stream is done with it, either.
                tensor.record_stream(stream)


class Streams:
    """The streams of a device.

    Parameters
    ----------
    device
        The device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._idle: list[torch.cuda.Stream] = []
        self._back = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """Queue the work of the block on a stream that no other thread uses, so that it does not wait for the common stream.

        Its kernels are small, and many are waited for: behind a network's, each would wait for a whole layer. There are no more
        streams than threads were in such blocks at once, because torch keeps the memory of each stream for itself.
        """
        if self._device.type != "cuda":
            yield
            return
        try:
            stream = self._idle.pop()
        except IndexError:
            stream = torch.cuda.Stream(self._device, priority=-1)
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            self._idle.append(stream)

    @contextlib.contextmanager
    def back(self, *tensors: torch.Tensor) -> Iterator[None]:
        """Queue copies of these tensors to the host: after all work launched so far, and beside all later work."""
        if self._back is None:
            yield
            return
        before = self.reached()
        with torch.cuda.stream(self._back):
            before.hand_over(*tensors)
            yield

    def reached(self) -> QueuedWork:
        """Mark the work launched so far on the current stream."""
        if self._device.type != "cuda":
            return QueuedWork()
        event = torch.cuda.Event()
        event.record()
        return QueuedWork(event)
