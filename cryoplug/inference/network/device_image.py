"""Run a network over a whole image on a GPU, in the largest tiles that fit beside it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from cryoplug.core.tiling import plan_tiles
from cryoplug.inference.network.fastest import Fits
from cryoplug.inference.network.memory_plan import LEAST_TILE_PX, widest_layer
from cryoplug.inference.network.tile_network import TileNetwork
from cryoplug.machine.devices import (
    Interrupted,
    OutOfDeviceMemory,
    device_errors,
    free_cached_memory,
    memory_for_tensors,
    only,
)
from cryoplug.models.checkpoint import Checkpoint

LEAST_ROWS = 64
"""Tiles of full width have at least this many rows and four overlaps; below that, square tiles have less overlap."""


class DeviceImage:
    """A network over images that lie on its device.

    Parameters
    ----------
    checkpoint
        The checkpoint of the network.
    tile_network
        The network for one tile, on its device.
    device
        The device of the network and the images.
    overlap
        Overlap of tiles in pixels; see `cryoplug.core.tiling.plan_tiles`.
    tile
        Side of a tile in pixels; 0: chosen automatically.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tile_network: TileNetwork,
        device: torch.device,
        *,
        overlap: int,
        tile: int,
    ) -> None:
        self._checkpoint = checkpoint
        self._tile_network = tile_network
        self._device = device
        self._overlap = overlap
        self._asked_tile = (tile, tile) if tile else None
        self._most_pixels = 0

    def __call__(self, pixels: torch.Tensor, should_stop: Callable[[], bool], fits: Fits = None) -> torch.Tensor:
        """Run the network.

        Parameters
        ----------
        pixels
            Normalised pixels ``(y, x)``, float32.
        should_stop
            Asked before each tile.
        fits
            See `cryoplug.inference.network.fastest.Network`.

        Returns
        -------
        torch.Tensor
            Normalised pixels of the same shape, on the device.

        Raises
        ------
        OutOfDeviceMemory
            Not even small tiles fit beside the image.
        DeviceError
            The device failed.
        Interrupted
            `should_stop` returned True.
        """
        while True:
            try:
                with device_errors(), only(self._device):
                    return self._in_tiles(pixels, should_stop, fits)
            except OutOfDeviceMemory:
                self._tile_network.network.forget_buffers()
                if self._most_pixels <= LEAST_TILE_PX**2:
                    raise
                self._most_pixels = max(LEAST_TILE_PX**2, min(self._most_pixels, pixels.numel()) // 2)
            # Only here, when the error and all that it held on to is gone.
            free_cached_memory(self._device)

    def _in_tiles(self, pixels: torch.Tensor, should_stop: Callable[[], bool], fits: Fits) -> torch.Tensor:
        shape = int(pixels.shape[0]), int(pixels.shape[1])
        tile = self._asked_tile or self._largest_tile(shape)
        result = torch.empty_like(pixels)
        for part in plan_tiles(shape, tile=tile, overlap=self._overlap, multiple=self._tile_network.multiple):
            if should_stop():
                raise Interrupted
            result[part.paste.slices] = self._tile_network(pixels[part.read.slices], fits)[part.crop.slices]
        return result

    def _largest_tile(self, shape: tuple[int, int]) -> tuple[int, int]:
        height, width = shape
        fitting = self._pixels_that_fit()
        rows = max(LEAST_TILE_PX, fitting // width)
        if rows >= min(height, LEAST_ROWS + 4 * self._overlap):
            return rows, width
        side = max(LEAST_TILE_PX, math.isqrt(fitting))
        return side, side

    def _pixels_that_fit(self) -> int:
        """Give the most pixels of a tile that fit into the GPU's memory and into the index range of its kernels."""
        if not self._most_pixels:
            values, network = widest_layer(self._checkpoint), self._tile_network.network
            self._most_pixels = network.most_values // values
            if self._device.type == "cuda":
                room = memory_for_tensors(self._device) // 2
                self._most_pixels = min(self._most_pixels, room // network.bytes_per_pixel(values))
        return self._most_pixels
