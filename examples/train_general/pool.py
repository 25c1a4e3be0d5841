"""A pool of simulated fields on the GPU, renewed while a network learns from crops of it.

A thread makes fields on a stream of its own. Which fields the pool holds at a step follows from the step alone, so a run that
was stopped goes on with the fields it would have had.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

BORDERED = 0.2
"""Part of the crops that have the border of a micrograph in them."""
MOST = 200.0
"""Pixels are cut off at so many sigma, so that float16 holds them."""


@dataclass(frozen=True)
class Truths:
    """A field as a network sees it, ``(3, y, x)`` float16: noisy, image, particles; in robust units of the noisy one."""

    planes: torch.Tensor
    ready: torch.cuda.Event | None


def robust_units(noisy: torch.Tensor, image: torch.Tensor, particles: torch.Tensor) -> torch.Tensor:
    """Normalise by the median and half the distance of the quantiles 0.1587 and 0.8413, as `robust` does."""
    ordered = noisy.flatten().sort().values
    low, centre, high = (ordered[int(part * (len(ordered) - 1))] for part in (0.1587, 0.5, 0.8413))
    scale = (high - low) / 2
    planes = torch.stack(((noisy - centre) / scale, (image - centre) / scale, particles / scale))
    return planes.clamp_(-MOST, MOST).half()


class FieldPool:
    """The newest fields; field n lies in slot n modulo their number.

    Parameters
    ----------
    make
        Gives field n as `robust_units` does; called in a thread, on a stream of its own.
    fields, size_px
        How many, and how large.
    first
        Number of the first field.
    """

    def __init__(
        self, make: Callable[[int], torch.Tensor], *, fields: int, size_px: int, first: int, device: torch.device
    ) -> None:
        self._make, self._first, self._device = make, first, device
        self.planes = torch.empty((fields, 3, size_px, size_px), dtype=torch.float16, device=device)
        self._made: queue.Queue[Truths | BaseException] = queue.Queue(maxsize=4)
        self._next = first
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        for _ in range(fields):
            self.renew()

    def renew(self) -> None:
        """Replace the oldest field by the next one; waits for it."""
        made = self._made.get()
        if isinstance(made, BaseException):
            raise RuntimeError("a field could not be made") from made
        if made.ready is not None:
            torch.cuda.current_stream().wait_event(made.ready)
            made.planes.record_stream(torch.cuda.current_stream())
        self.planes[self._next % len(self.planes)] = made.planes
        self._next += 1

    def crops(self, count: int, side_px: int, rng: np.random.Generator) -> torch.Tensor:
        """Cut ``(count, 3, side, side)`` at random from random fields, each turned and mirrored at random.

        A part of them has a border: what lies beyond it is the mirror image, as `denoise` continues a micrograph.
        """
        fields, size = len(self.planes), self.planes.shape[-1]
        cut = []
        for _ in range(count):
            number, y, x = (int(rng.integers(limit)) for limit in (fields, size - side_px + 1, size - side_px + 1))
            crop = self.planes[number, :, y : y + side_px, x : x + side_px]
            if rng.random() < BORDERED:
                border = int(rng.integers(1, side_px // 3))
                beyond = crop[:, border + 1 : 2 * border + 1].flip(1)
                crop = torch.cat((beyond, crop[:, border:]), dim=1)
            turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
            crop = crop.rot90(turns, (1, 2))
            cut.append(crop.flip(2) if mirrored else crop)
        return torch.stack(cut)

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        while self._thread.is_alive():
            try:
                self._made.get(timeout=0.1)
            except queue.Empty:
                continue

    def _run(self) -> None:
        on_gpu = self._device.type == "cuda"
        stream = torch.cuda.Stream(self._device) if on_gpu else None
        number = self._first
        try:
            with torch.inference_mode(), torch.cuda.stream(stream):
                while not self._ended.is_set():
                    planes = self._make(number)
                    ready = torch.cuda.Event() if on_gpu else None
                    if ready is not None:
                        ready.record(stream)
                    self._made.put(Truths(planes, ready))
                    number += 1
        except BaseException as error:  # noqa: BLE001 - `renew` raises it where it is seen
            self._made.put(error)
