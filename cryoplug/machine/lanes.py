"""Streams of a GPU: the work of each thread runs beside that of the others, and copies run beside arithmetic.

On the one stream that torch begins with, a copy of 67 MB keeps a whole GPU waiting for 1.2 ms, and a thread that asks for a
number waits for all that other threads have queued before. On the CPU nothing of this exists, and nothing is done.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Lane:
    """What was queued on one stream up to a moment."""

    event: torch.cuda.Event | None = None
    """None on the CPU, where everything is done at once."""

    def wait(self) -> None:
        """Let the host wait for it."""
        if self.event is not None:
            self.event.synchronize()

    def hand_over(self, *tensors: torch.Tensor | None) -> None:
        """Let the current stream wait for it, before it uses these tensors of the other stream."""
        if self.event is None:
            return
        stream = torch.cuda.current_stream()
        stream.wait_event(self.event)
        for tensor in tensors:
            if tensor is not None:
                # Its memory is not given out again before this stream is done with it, either.
                tensor.record_stream(stream)


class Lanes:
    """The streams of a device.

    Parameters
    ----------
    device
        Which.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._own = threading.local()
        self._back = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """Queue what is launched in the block on a stream of this thread's own."""
        if self._device.type != "cuda":
            yield
            return
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(self._device)
        with torch.cuda.stream(self._own.stream):
            yield

    @contextlib.contextmanager
    def back(self, *tensors: torch.Tensor) -> Iterator[None]:
        """Queue copies to the host of these tensors, after all that was launched so far, beside all that comes."""
        if self._back is None:
            yield
            return
        before = self.reached()
        with torch.cuda.stream(self._back):
            before.hand_over(*tensors)
            yield

    def reached(self) -> Lane:
        """Mark what was launched so far on the current stream."""
        if self._device.type != "cuda":
            return Lane()
        event = torch.cuda.Event()
        event.record()
        return Lane(event)
