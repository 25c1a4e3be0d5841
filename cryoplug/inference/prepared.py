"""A checkpoint's network, ready for images of any size: bands of rows, each cut into tiles, equal to the whole image at once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryoplug.core.micrograph import ImageF32
from cryoplug.core.tiling import Tile, plan_tiles
from cryoplug.errors import DeviceError
from cryoplug.inference.network.batches import Batches
from cryoplug.inference.network.borders import band_borders, border_width, continued, continued_on_device
from cryoplug.inference.network.device_image import DeviceImage
from cryoplug.inference.network.fastest import Fits, Network
from cryoplug.inference.network.memory_plan import (
    LEAST_TILE_PX,
    MemoryPlan,
    plan_memory,
    resident_bytes,
    rows_that_fit,
    widest_layer,
)
from cryoplug.inference.network.orientations import averages_orientations
from cryoplug.inference.network.rolling import rolling_network
from cryoplug.inference.network.tile_network import TileNetwork
from cryoplug.inference.settings import ApplySettings
from cryoplug.inference.target import choose_target
from cryoplug.machine.allocator import keep_allocator_memory
from cryoplug.machine.core_workers import one_core_workers
from cryoplug.machine.devices import (
    Interrupted,
    OutOfDeviceMemory,
    device_errors,
    free_cached_memory,
    hidden_gpu_note,
    only,
    resolve_device,
)
from cryoplug.models.checkpoint import Checkpoint

CPU_TILE_PX = (128, 256)
"""Rows and columns of a tile on the CPU: 16 channels of it are 2 MB and stay in cache."""
OVERLAPS_PER_TILE, MOST_WIDENED_PX = 8, 448
"""A network that looks far gets larger tiles on the CPU, up to a side, or most of the work would be overlap."""
CUDA_TILE_PX = (512, 4096)
"""Rows and columns of a tile on a GPU: large enough to fill it, 270 MB for 32 channels."""
BAND_PIXELS = 1 << 20
"""A band of a very wide image gets fewer rows, so that its size stays near 4 MB."""
SHALLOW_LAYERS = 4
"""Up to this many layers the faster order of summation is used; see `PreparedNetwork`."""
BATCH_PIXELS = 1 << 16
"""So many pixels of small images go through a network at once on a CPU, where a tile has fewer. Images of 64 x 64, `cryo_cnn`,
one core: 0.38 ms an image; half as many pixels 0.45 (more calls), eight times as many 0.48 (beyond the cache)."""
MOST_SECTIONS = 4
"""Parts of a stack that are under way at once."""
LEAST_ROWS = 64
"""But not fewer than these: every band is computed together with its overlap."""
ROLLED_PIXELS = 1 << 23
"""Of a band of a network that rolls over its rows: 32 MB, so that hardly any image is cut, and overlap costs 10 % at most."""


class PreparedNetwork:
    """A network with its weights, on its device, ready for images of any size.

    Parameters
    ----------
    checkpoint
        The weights, from `cryoplug.models.checkpoint.load_checkpoint`.
    settings
        How it is applied; None: as ``cryoplug denoise`` does when it is given no option.
    bare
        See the attribute; None: for the founding program's own checkpoints with percentile, and for ``none``.
    note
        Called with a sentence when something is worth telling: tiles made smaller, a limit that does not count.
    options
        Fields of `cryoplug.inference.settings.ApplySettings`, which beat those of `settings`: ``device="cpu"``.

    Raises
    ------
    DeviceError
        The GPU that was asked for is not there.
    UsageError
        An argument is out of range, or the memory too little.
    FormatError
        The weights do not fit the network.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: ApplySettings | None = None,
        *,
        bare: bool | None = None,
        note: Callable[[str], None] = lambda text: None,
        **options: Any,
    ) -> None:
        asked = replace(ApplySettings() if settings is None else settings.settings, **options)
        self.checkpoint = checkpoint
        self.settings = replace(asked, normalize=asked.normalize or checkpoint.normalize)
        """How it is applied."""
        self.regrid = asked.regrid(checkpoint)
        """What is done around the network."""
        self.normalize = asked.normalize or checkpoint.normalize
        self.target = choose_target(asked.target, checkpoint)
        """Which output of the network is the result."""
        self._note = note
        self.device = resolve_device(asked.device)
        if asked.device == "auto" and (text := hidden_gpu_note(self.device)):
            note(text)
        self.tta = averages_orientations(str(asked.tta), self.device, angpix=self.regrid.angpix)
        self.threads = asked.threads or len(os.sched_getaffinity(0))
        spec = checkpoint.spec
        self._multiple = spec.size_multiple
        self._overlap = -(-spec.receptive_field_px // self._multiple) * self._multiple
        as_founded = checkpoint.founding and self.normalize == "percentile"
        self.bare = (self.normalize == "none" or as_founded) if bare is None else bare
        """Whether the network is applied as it is, as the founding program does with its own: no hot pixel is repaired, no
        border continued, no mean kept."""
        self._border = 0 if self.bare else border_width(self._overlap, self._multiple)
        if self.bare and as_founded:
            note(
                "this checkpoint is the founding program's own. By its contract it gives what it gave there, to the last pixel: "
                f"zeros beyond the border leave a dark frame of {spec.receptive_field_px} px, and hot pixels and the mean stay "
                "as they come. Do not pick in that frame; what cryoplug train makes of it (train --init) has none of this"
            )
        if spec.uses_whole_image:
            note(
                f"{spec.id}: this network takes its norm over what it sees at once, so the result depends on the tiles; "
                "one trained with norm=none gives the same whatever the tiles"
            )
        self._told_of_memory = False
        on_cpu = self.device.type == "cpu"
        least = min(MOST_WIDENED_PX, OVERLAPS_PER_TILE * self._overlap)
        height, width = (max(side, least) for side in CPU_TILE_PX) if on_cpu else CUDA_TILE_PX
        self._tile = (asked.tile, asked.tile) if asked.tile else (height, width)
        # 4096x4096 through cryo_cnn, float32: channels_last takes two thirds of the time on a CPU, and 23 ms instead of 16
        # on an H200. It sums in another order than the plain layers: 7e-7 of the output's range over 3 layers, but 1.6e-5
        # over the 12 of a founding residual_cnn. A deep network therefore keeps the plain order, and its very bits.
        shallow = len(spec.layers) <= SHALLOW_LAYERS
        layout = torch.channels_last if on_cpu and shallow else torch.contiguous_format
        if on_cpu:
            keep_allocator_memory()
        try:
            with device_errors(), only(self.device):
                self.network = Network(
                    checkpoint,
                    self.device,
                    layout=layout,
                    precision=asked.precision,
                    normalize=self.normalize,
                    target=self.target,
                    note=note,
                )
        except OutOfDeviceMemory as error:
            raise DeviceError(f"{self.device}: not enough memory for the weights ({error}); free memory") from error
        self._tile_network = TileNetwork(self.network, multiple=self._multiple, tta=self.tta)
        self._device_image = DeviceImage(
            checkpoint, self._tile_network, self.device, overlap=self._overlap, tile=asked.tile
        )
        self._batches = Batches(self._tile_network, self.device, border=self._border)
        self._plan = self._fit_into(asked.max_memory_bytes)
        self._workers = one_core_workers(self.threads) if on_cpu else None
        self._rolling = None
        if self._workers is not None and self._plan is None and not asked.tile:
            self._rolling = rolling_network(
                self.network, multiple=self._multiple, tta=self.tta, workers=self._workers, threads=self.threads
            )

    def bands(self, shape: tuple[int, int]) -> list[Tile]:
        """Cut an image ``(y, x)`` into bands of full width, from top to bottom, each to be given to `forward`."""
        rows = min(self._tile[0], max(LEAST_ROWS, 4 * self._overlap, BAND_PIXELS // shape[1]))
        if self.device.type != "cpu":
            rows = self._tile[0]
        if self._rolling is not None:
            rows = max(rows, ROLLED_PIXELS // shape[1])
        if self._plan is not None:
            rows = rows_that_fit(self._plan, min(rows, shape[0]), shape[1], overlap_px=self._overlap)
        return plan_tiles(shape, tile=(rows, shape[1]), overlap=self._overlap, multiple=self._multiple)

    def tile_borders(
        self, shape: tuple[int, int], *, pixel_size_angstrom: float | None = None
    ) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Give the first row and the first column of every tile that an image ``(y, x)`` is computed in.

        None where the network works on another grid than the image's.
        """
        if not self.regrid.plan(shape, pixel_size_angstrom, path=Path("<array>")).does_nothing:
            return None
        bands = self.bands(shape)
        # A tile is as high as its band, so the bands carry all borders between rows.
        columns = {max(0, tile.paste.x0 - self._border) for tile in self._tiles(self._continued_shape(bands[0]))}
        return tuple(sorted({band.paste.y0 for band in bands})), tuple(sorted(columns))

    def bands_at_once(self, shape: tuple[int, int]) -> int:
        """Tell how many bands of an image ``(y, x)`` to `start` before the first is waited for, so that no core is idle."""
        if self._workers is None or self.threads == 1 or self._rolling is not None:
            return 1
        tiles = len(self._tiles(self._continued_shape(self.bands(shape)[0])))
        return 1 + -(-self.threads // tiles)

    def forward(self, rows: ImageF32, band: Tile, should_stop: Callable[[], bool] = lambda: False) -> ImageF32:
        """Run the network over a band; see `start`, for whose result this waits."""
        return self.start(rows, band, should_stop)()

    def start(
        self, rows: ImageF32, band: Tile, should_stop: Callable[[], bool] = lambda: False
    ) -> Callable[[], ImageF32]:
        """Begin to run the network over a band.

        Parameters
        ----------
        rows
            Normalised pixels of ``band.read``.
        band
            From `bands`.
        should_stop
            Asked before each tile.

        Returns
        -------
        Callable
            Waits for the end and gives normalised pixels of ``band.paste``, a new array. It raises `DeviceError` when
            even small tiles do not fit into memory or the device failed, and `Interrupted` when `should_stop` said yes.
        """
        begun_with = self._tile
        crop = band.crop.slices
        if self._border:
            above, below = band_borders(band, overlap_px=self._overlap, width_px=self._border)
            rows = continued(rows, above, below, self._border)
            crop = band.crop.shifted(above, self._border).slices
        begun = self._begin(rows, should_stop)

        def finish() -> ImageF32:
            result = self._unless_memory_runs_out(begun, begun_with)
            while result is None:
                # Only here, when the error and all that it held on to is gone.
                free_cached_memory(self.device)
                used = self._tile
                result = self._unless_memory_runs_out(lambda: self._begin(rows, should_stop)(), used)
            if self._tile != begun_with and not self._told_of_memory:
                self._told_of_memory = True
                self._note(
                    f"{self.device}: memory ran out with tiles of {begun_with[0]}x{begun_with[1]} px; going on with "
                    f"{self._tile[0]}x{self._tile[1]} px, which gives the same result"
                )
            return result[crop]

        return finish

    def is_one_tile(self, shape: tuple[int, int]) -> bool:
        """Tell whether an image ``(y, x)`` is computed in one piece."""
        bands = self.bands(shape)
        # Threads share the images, so that none need be cut for them.
        return len(bands) == 1 and shape[0] <= self._tile[0] and self._continued_shape(bands[0])[1] <= self._tile[1]

    def sections_at_once(self, shape: tuple[int, int]) -> int:
        """Give how many parts of a stack of images ``(y, x)`` to begin before the first is waited for.

        Small images take as long to measure as to compute on a GPU: one part is measured while another one is computed.
        """
        if self.threads == 1 or self._plan is not None or not self.is_one_tile(shape):
            return 1
        return 2 if self.device.type == "cpu" else min(self.threads, MOST_SECTIONS)

    def many(self, images: ImageF32, should_stop: Callable[[], bool] = lambda: False) -> ImageF32:
        """Run the network over normalised images ``(n, y, x)``, each of which `is_one_tile`, many at a time."""
        pixels = self._tile[0] * self._tile[1]
        if self._workers is not None and self._plan is None and not self.settings.tile:
            pixels = max(pixels, BATCH_PIXELS)
        return self._batches(images, should_stop, most_pixels=pixels, workers=self._workers)

    def forward_on_device(
        self, pixels: torch.Tensor, should_stop: Callable[[], bool] = lambda: False, fits: Fits = None
    ) -> torch.Tensor:
        """Run the network over a whole image that is on the device; see `cryoplug.inference.network.device_image`."""
        if not self._border:
            return self._device_image(pixels, should_stop, fits)
        height, width = pixels.shape
        made = self._device_image(continued_on_device(pixels, self._border), should_stop, fits)
        return made[self._border : self._border + height, self._border : self._border + width].contiguous()

    def _unless_memory_runs_out(self, compute: Callable[[], ImageF32], tile: tuple[int, int]) -> ImageF32 | None:
        """Compute; None when memory ran out with this tile, and then tiles are smaller from now on."""
        try:
            with device_errors(), only(self.device):
                return compute()
        except OutOfDeviceMemory as error:
            self.network.forget_buffers()
            if self._rolling is not None:
                self._rolling = None
                self._note(
                    f"{self.device}: memory ran out; going on with tiles, which is slower and gives the same result"
                )
                return None
            height, width = tile
            if max(height, width) <= LEAST_TILE_PX:
                raise DeviceError(
                    f"{self.device}: not enough memory for a tile of {height}x{width} px ({error}); "
                    "free memory, or use --device cpu --threads 1"
                ) from error
            if self._tile == tile:  # else another band made them smaller already
                self._tile = (min(height, max(height // 2, LEAST_TILE_PX)), min(width, max(width // 2, LEAST_TILE_PX)))
            return None

    def _fit_into(self, limit_bytes: int | None) -> MemoryPlan | None:
        if limit_bytes is None:
            return None
        if self.device.type != "cpu":
            self._note(
                f"--max-memory counts for the CPU alone; {self.device} takes smaller tiles when its own runs out"
            )
            return None
        plan = plan_memory(
            limit_bytes,
            in_use_bytes=resident_bytes(),
            channels=widest_layer(self.checkpoint),
            overlap_px=self._overlap,
            tile=self._tile,
            threads=self.threads,
        )
        self._tile, self.threads = plan.tile, plan.threads
        return plan

    def _begin(self, rows: ImageF32, should_stop: Callable[[], bool]) -> Callable[[], ImageF32]:
        """Begin to compute a band; what is returned waits for it."""
        if self._rolling is not None:
            return self._rolling.start(rows, should_stop)
        tiles = self._tiles(rows.shape)
        result = np.empty(rows.shape, np.float32)

        def run(tile: Tile) -> None:
            if should_stop():
                raise Interrupted
            pixels = torch.from_numpy(rows[tile.read.slices]).to(self.device)
            torch.from_numpy(result)[tile.paste.slices].copy_(self._tile_network(pixels)[tile.crop.slices])

        # A band's tiles are queued behind those of the band before: a worker that is done takes the next band's first.
        begun = self._workers.map(run, tiles) if self._workers is not None else map(run, tiles)

        def finish() -> ImageF32:
            deque(begun, maxlen=0)
            return result

        return finish

    def _continued_shape(self, band: Tile) -> tuple[int, int]:
        above, below = band_borders(band, overlap_px=self._overlap, width_px=self._border)
        height, width = band.read.shape
        return height + above + below, width + 2 * self._border

    def _tiles(self, shape: tuple[int, ...]) -> list[Tile]:
        if self._rolling is not None:
            return plan_tiles((shape[0], shape[1]), tile=(shape[0], shape[1]), overlap=0)
        height, width = self._tile[0] + 2 * self._overlap, self._tile[1]
        if self._workers is not None:
            width = min(width, max(LEAST_TILE_PX, -(-shape[1] // self.threads)))
        return plan_tiles((shape[0], shape[1]), tile=(height, width), overlap=self._overlap, multiple=self._multiple)
