"""Pinned host memory, which a GPU reads and writes directly: a few buffers, lent again and again."""

from __future__ import annotations

import threading

import torch

from cryoplug.machine.channel import Closed
from cryoplug.machine.devices import only


class PinnedBuffers:
    """Lends buffers of at least a given size; waits while too many are lent.

    Parameters
    ----------
    most
        Most buffers that exist at a time.
    most_bytes
        Most bytes that all of them take together; a single larger buffer is still made.
    device
        The GPU that they are for; for the CPU they are ordinary memory.
    """

    def __init__(self, *, most: int, most_bytes: int, device: torch.device) -> None:
        self._most, self._most_bytes, self._device = most, most_bytes, device
        self._free: list[torch.Tensor] = []
        self._lent = 0
        self._size_bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def size_bytes(self) -> int:
        """Bytes that all buffers take now."""
        return self._size_bytes

    def has(self, size_bytes: int) -> bool:
        """Tell whether a buffer of this size can be lent without waiting."""
        with self._changed:
            return self._can_lend(size_bytes)

    def take(self, size_bytes: int) -> torch.Tensor:
        """Lend a buffer of uint8 of at least `size_bytes`; raise `Closed` if the run is ending."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._can_lend(size_bytes))
            if self._closed:
                raise Closed
            self._lent += 1
            fitting = [place for place, buffer in enumerate(self._free) if buffer.numel() >= size_bytes]
            if fitting:
                return self._free.pop(min(fitting, key=lambda place: self._free[place].numel()))
            while self._free and not self._has_room(size_bytes):
                self._size_bytes -= self._free.pop().numel()
            self._size_bytes += size_bytes
        # Outside of the lock: locking 64 MB of pages takes 75 ms.
        try:
            with only(self._device):
                return torch.empty(size_bytes, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        except BaseException:
            with self._changed:
                self._lent -= 1
                self._size_bytes -= size_bytes
            raise

    def give_back(self, buffer: torch.Tensor) -> None:
        """Take a buffer back."""
        with self._changed:
            self._lent -= 1
            self._free.append(buffer)
            self._changed.notify_all()

    def close(self) -> None:
        """Wake every thread that waits for a buffer; each gets `Closed`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _can_lend(self, size_bytes: int) -> bool:
        if not self._lent or any(buffer.numel() >= size_bytes for buffer in self._free):
            return True
        free_bytes = sum(buffer.numel() for buffer in self._free)
        return self._lent < self._most and self._size_bytes - free_bytes + size_bytes <= self._most_bytes

    def _has_room(self, size_bytes: int) -> bool:
        return self._lent + len(self._free) <= self._most and self._size_bytes + size_bytes <= self._most_bytes
