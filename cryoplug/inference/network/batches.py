"""Run a network over many small images of one shape at a time, with at most as many pixels as a tile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from threading import Lock

import numpy as np
import torch

from cryoplug.core.micrograph import ImageF32
from cryoplug.errors import DeviceError
from cryoplug.inference.network.tile_network import TileNetwork
from cryoplug.machine.devices import Interrupted, OutOfDeviceMemory, device_errors, free_cached_memory, only


class Batches:
    """Denoises normalised images ``(n, y, x)``; each result equals that of the image alone, up to float32 rounding.

    Parameters
    ----------
    tile_network
        The network.
    device
        Device of the network.
    border
        Pixels by which each image is continued on all sides; see `cryoplug.inference.network.borders`.
    """

    def __init__(self, tile_network: TileNetwork, device: torch.device, *, border: int) -> None:
        self._tile_network = tile_network
        self._device = device
        self._border = border
        # A network on a GPU has buffers of its own: one thread at a time. On a CPU each call has its own.
        self._turn: AbstractContextManager[object] = nullcontext() if device.type == "cpu" else Lock()

    def __call__(
        self,
        images: ImageF32,
        should_stop: Callable[[], bool],
        *,
        most_pixels: int,
        workers: ThreadPoolExecutor | None,
    ) -> ImageF32:
        """Run the network.

        Parameters
        ----------
        images
            Normalised images ``(n, y, x)``.
        should_stop
            Asked before each batch.
        most_pixels
            Most pixels of a batch; fewer when memory runs out.
        workers
            Threads that take batches; None: the calling thread does.

        Raises
        ------
        DeviceError
            Not even one image fits into memory, or the device failed.
        Interrupted
            `should_stop` returned True.
        """
        height, width = (side + 2 * self._border for side in images.shape[1:])
        count = min(len(images), max(1, most_pixels // (height * width)))
        while True:
            try:
                with self._turn, device_errors(), only(self._device):
                    return self._run(images, should_stop, count, workers)
            except OutOfDeviceMemory as error:
                self._tile_network.network.forget_buffers()
                if count == 1:
                    raise DeviceError(
                        f"{self._device}: not enough memory for an image of {height}x{width} px"
                    ) from error
                count = max(1, count // 2)
            free_cached_memory(self._device)

    def _run(
        self, images: ImageF32, should_stop: Callable[[], bool], count: int, workers: ThreadPoolExecutor | None
    ) -> ImageF32:
        made = np.empty(images.shape, np.float32)
        side = self._border

        def run(first: int) -> None:
            if should_stop():
                raise Interrupted
            batch = images[first : first + count]
            if side:
                batch = np.pad(batch, ((0, 0), (side, side), (side, side)), mode="reflect")
            pixels = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device)
            inner = self._tile_network.many(pixels)[:, side : side + images.shape[1], side : side + images.shape[2]]
            torch.from_numpy(made)[first : first + count].copy_(inner)

        starts = range(0, len(images), count)
        deque(workers.map(run, starts) if workers is not None else map(run, starts), maxlen=0)
        return made
