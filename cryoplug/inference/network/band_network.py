"""Run a network over bands of an image, tile by tile; when memory runs out, go on with smaller tiles."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from cryoplug.core.micrograph import ImageF32
from cryoplug.core.tiling import Tile
from cryoplug.errors import DeviceError
from cryoplug.inference.network.borders import band_borders, continued
from cryoplug.inference.network.cutting import Cutting
from cryoplug.inference.network.rolling import RollingNetwork
from cryoplug.inference.network.tile_network import TileNetwork
from cryoplug.machine.devices import Interrupted, OutOfDeviceMemory, device_errors, free_cached_memory, only


class BandNetwork:
    """Denoises bands of an image.

    Parameters
    ----------
    tile_network
        The network for one tile.
    cutting
        How bands are cut into tiles.
    device
        The device of the network.
    workers
        Threads that take tiles; None: the calling thread does.
    rolling
        The network that rolls over the rows of a band; None: bands go in tiles.
    note
        Called with a sentence for the user when memory runs out.
    """

    def __init__(
        self,
        tile_network: TileNetwork,
        cutting: Cutting,
        device: torch.device,
        *,
        workers: ThreadPoolExecutor | None,
        rolling: RollingNetwork | None,
        note: Callable[[str], None],
    ) -> None:
        self._tile_network = tile_network
        self._cutting = cutting
        self._device = device
        self._workers = workers
        self._rolling = rolling
        self._note = note
        self._told_of_memory = False

    def start(self, rows: ImageF32, band: Tile, should_stop: Callable[[], bool]) -> Callable[[], ImageF32]:
        """Begin to compute a band; see `cryoplug.inference.prepared.PreparedNetwork.start`."""
        begun_with, border = self._cutting.tile, self._cutting.border_px
        crop = band.crop.slices
        if border:
            above, below = band_borders(band, overlap_px=self._cutting.overlap_px, width_px=border)
            rows = continued(rows, above, below, border)
            crop = band.crop.shifted(above, border).slices
        begun = self._begin(rows, should_stop)

        def finish() -> ImageF32:
            result = self._unless_memory_runs_out(begun, begun_with)
            while result is None:
                # Only here, when the error and all that it held on to is gone.
                free_cached_memory(self._device)
                used = self._cutting.tile
                result = self._unless_memory_runs_out(lambda: self._begin(rows, should_stop)(), used)
            self._tell_of_smaller_tiles(begun_with)
            return result[crop]

        return finish

    def _begin(self, rows: ImageF32, should_stop: Callable[[], bool]) -> Callable[[], ImageF32]:
        """Begin to compute a band; give a function that waits for the result."""
        if self._rolling is not None:
            return self._rolling.start(rows, should_stop)
        tiles = self._cutting.tiles(rows.shape)
        result = np.empty(rows.shape, np.float32)

        def run(tile: Tile) -> None:
            if should_stop():
                raise Interrupted
            pixels = torch.from_numpy(rows[tile.read.slices]).to(self._device)
            torch.from_numpy(result)[tile.paste.slices].copy_(self._tile_network(pixels)[tile.crop.slices])

        # A band's tiles are queued behind those of the band before: a worker that is done takes the next band's first.
        begun = self._workers.map(run, tiles) if self._workers is not None else map(run, tiles)

        def finish() -> ImageF32:
            deque(begun, maxlen=0)
            return result

        return finish

    def _unless_memory_runs_out(self, compute: Callable[[], ImageF32], tile: tuple[int, int]) -> ImageF32 | None:
        """Compute; None if memory ran out with this tile, and tiles are smaller from then on."""
        try:
            with device_errors(), only(self._device):
                return compute()
        except OutOfDeviceMemory as error:
            self._tile_network.network.forget_buffers()
            if self._rolling is not None:
                self._rolling, self._cutting.rolled = None, False
                self._note(
                    f"{self._device}: memory ran out; going on with tiles, which is slower and gives the same result"
                )
            elif not self._cutting.made_smaller(tile):
                raise DeviceError(
                    f"{self._device}: not enough memory for a tile of {tile[0]}x{tile[1]} px ({error}); "
                    "free memory, or use --device cpu --threads 1"
                ) from error
            return None

    def _tell_of_smaller_tiles(self, begun_with: tuple[int, int]) -> None:
        if self._cutting.tile != begun_with and not self._told_of_memory:
            self._told_of_memory = True
            self._note(
                f"{self._device}: memory ran out with tiles of {begun_with[0]}x{begun_with[1]} px; going on with "
                f"{self._cutting.tile[0]}x{self._cutting.tile[1]} px, which gives the same result"
            )
