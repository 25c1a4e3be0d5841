"""A checkpoint's network for images of any size, in bands of rows cut into tiles; the result equals that of the whole image."""

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
from cryoplug.models.registry import ModelSpec

CPU_TILE_PX = (128, 256)
"""Rows and columns of a tile on the CPU; 16 channels of it are 2 MB and stay in cache."""
OVERLAPS_PER_TILE, MOST_WIDENED_PX = 8, 448
"""A network with a large receptive field gets larger tiles on the CPU, up to this side in pixels, to limit the overlap."""
CUDA_TILE_PX = (512, 4096)
"""Rows and columns of a tile on a GPU; large enough to use all of it, 270 MB for 32 channels."""
BAND_PIXELS = 1 << 20
"""Pixels of a band; a very wide image gets fewer rows per band, so that a band stays near 4 MB."""
SHALLOW_LAYERS = 4
"""Most layers for which the faster order of summation is used; see `PreparedNetwork`."""
BATCH_PIXELS = 1 << 16
"""Pixels of small images that go through a network at once on a CPU, if a tile has fewer. Images of 64 x 64, `cryo_cnn`, one
core: 0.38 ms per image; with half as many pixels 0.45 (more calls), with eight times as many 0.48 (beyond the cache)."""
MOST_SECTIONS = 4
"""Most parts of a stack in work at once."""
LEAST_ROWS = 64
"""Fewest rows of a band, because every band is computed together with its overlap."""
ROLLED_PIXELS = 1 << 23
"""Pixels of a band for a network that rolls over its rows (32 MB): hardly any image is cut, and overlap costs 10 % at most."""


class PreparedNetwork:
    """A network with its weights, on its device, ready for images of any size.

    Parameters
    ----------
    checkpoint
        The weights, from `cryoplug.models.checkpoint.load_checkpoint`.
    settings
        How the network is applied; None: as ``cryoplug denoise`` without options.
    bare
        See the attribute; None: for the founding program's own checkpoints with percentile, and for ``none``.
    note
        Called with each sentence for the user, for example when tiles are made smaller.
    options
        Fields of `cryoplug.inference.settings.ApplySettings`, which override `settings`; for example ``device="cpu"``.

    Raises
    ------
    DeviceError
        The requested GPU does not exist.
    UsageError
        An argument is out of range, or there is too little memory.
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
        """Steps around the network: change of pixel size, strength, filters."""
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
        """Whether the network is applied without corrections, as in the founding program: hot pixels are not repaired,
        borders not continued, the mean not kept."""
        self._border = 0 if self.bare else border_width(self._overlap, self._multiple)
        _note_oddities(spec, note, as_founded=self.bare and as_founded)
        self._told_of_memory = False
        on_cpu = self.device.type == "cpu"
        least = min(MOST_WIDENED_PX, OVERLAPS_PER_TILE * self._overlap)
        height, width = (max(side, least) for side in CPU_TILE_PX) if on_cpu else CUDA_TILE_PX
        self._tile = (asked.tile, asked.tile) if asked.tile else (height, width)
        if on_cpu:
            keep_allocator_memory()
        self._workers = one_core_workers(self.threads) if on_cpu else None
        self.network = self._loaded()
        self._tile_network = TileNetwork(self.network, multiple=self._multiple, tta=self.tta)
        self._device_image = DeviceImage(
            checkpoint, self._tile_network, self.device, overlap=self._overlap, tile=asked.tile
        )
        self._batches = Batches(self._tile_network, self.device, border=self._border)
        self._plan = self._fit_into(asked.max_memory_bytes)
        self._rolling = None
        if self._workers is not None and self._plan is None and not asked.tile:
            self._rolling = self._workers.submit(
                rolling_network,
                self.network,
                multiple=self._multiple,
                tta=self.tta,
                workers=self._workers,
                threads=self.threads,
            ).result()

    def _loaded(self) -> Network:
        """Bring the weights to the device."""
        # 4096x4096 through cryo_cnn, float32: channels_last takes two thirds of the time on a CPU, and 23 ms instead of 16
        # on an H200. It sums in another order than the plain layers: 7e-7 of the output's range over 3 layers, but 1.6e-5
        # over the 12 of a founding residual_cnn. A deep network therefore keeps the plain order, and its very bits.
        shallow = len(self.checkpoint.spec.layers) <= SHALLOW_LAYERS
        layout = torch.channels_last if self.device.type == "cpu" and shallow else torch.contiguous_format

        def build() -> Network:
            return Network(
                self.checkpoint,
                self.device,
                layout=layout,
                precision=self.settings.precision,
                normalize=self.normalize,
                target=self.target,
                note=self._note,
            )

        try:
            with device_errors(), only(self.device):
                # On one core: in many small operations, several would mostly wait for one another. On a machine with other
                # jobs, building and packing the general model took 0.4 to 1.6 s of processor time, and so 0.2.
                return build() if self._workers is None else self._workers.submit(build).result()
        except OutOfDeviceMemory as error:
            raise DeviceError(f"{self.device}: not enough memory for the weights ({error}); free memory") from error

    def bands(self, shape: tuple[int, int]) -> list[Tile]:
        """Cut an image ``(y, x)`` into bands of full width, from top to bottom; each goes to `forward`."""
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
        """Give the first rows and first columns of the tiles of an image ``(y, x)``.

        None if the network works on another grid than the image.
        """
        if not self.regrid.plan(shape, pixel_size_angstrom, path=Path("<array>")).does_nothing:
            return None
        bands = self.bands(shape)
        # A tile is as high as its band, so the bands carry all borders between rows.
        columns = {max(0, tile.paste.x0 - self._border) for tile in self._tiles(self._continued_shape(bands[0]))}
        return tuple(sorted({band.paste.y0 for band in bands})), tuple(sorted(columns))

    def bands_at_once(self, shape: tuple[int, int]) -> int:
        """Give the number of bands of an image ``(y, x)`` to `start` before waiting for the first, so that no core is idle."""
        if self._workers is None or self.threads == 1 or self._rolling is not None:
            return 1
        tiles = len(self._tiles(self._continued_shape(self.bands(shape)[0])))
        return 1 + -(-self.threads // tiles)

    def forward(self, rows: ImageF32, band: Tile, should_stop: Callable[[], bool] = lambda: False) -> ImageF32:
        """Run the network over a band and wait for the result; see `start`."""
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
            The band, from `bands`.
        should_stop
            Asked before each tile.

        Returns
        -------
        Callable
            A function that waits and gives normalised pixels of ``band.paste``, a new array. It raises `DeviceError` if even
            small tiles do not fit into memory or the device failed, and `Interrupted` if `should_stop` returned True.
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
        """Give the number of parts of a stack of images ``(y, x)`` to begin before waiting for the first.

        On a GPU, measuring small images takes as long as computing them, so one part is measured while another is computed.
        """
        if self.threads == 1 or self._plan is not None or not self.is_one_tile(shape):
            return 1
        return 2 if self.device.type == "cpu" else min(self.threads, MOST_SECTIONS)

    def many(self, images: ImageF32, should_stop: Callable[[], bool] = lambda: False) -> ImageF32:
        """Run the network over many normalised images ``(n, y, x)`` at a time; each must fit into one tile, see `is_one_tile`."""
        pixels = self._tile[0] * self._tile[1]
        if self._workers is not None and self._plan is None and not self.settings.tile:
            pixels = max(pixels, BATCH_PIXELS)
        return self._batches(images, should_stop, most_pixels=pixels, workers=self._workers)

    def forward_on_device(
        self, pixels: torch.Tensor, should_stop: Callable[[], bool] = lambda: False, fits: Fits = None
    ) -> torch.Tensor:
        """Run the network over a whole image on the device; see `cryoplug.inference.network.device_image`."""
        if not self._border:
            return self._device_image(pixels, should_stop, fits)
        height, width = pixels.shape
        made = self._device_image(continued_on_device(pixels, self._border), should_stop, fits)
        return made[self._border : self._border + height, self._border : self._border + width].contiguous()

    def _unless_memory_runs_out(self, compute: Callable[[], ImageF32], tile: tuple[int, int]) -> ImageF32 | None:
        """Compute; None if memory ran out with this tile, and tiles are smaller from then on."""
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
            self._note(f"--max-memory counts only on the CPU; {self.device} takes smaller tiles when its own runs out")
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
        """Begin to compute a band; give a function that waits for the result."""
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


def _note_oddities(spec: ModelSpec, note: Callable[[str], None], *, as_founded: bool) -> None:
    """Say what users of a network must know before they look at its results."""
    if as_founded:
        note(
            "this checkpoint comes from the founding program, so its result equals that program's to the last pixel: zeros "
            f"beyond the border leave a dark frame of {spec.receptive_field_px} px, hot pixels are not repaired, and the "
            "mean is not kept. Do not pick in that frame; train --init makes a checkpoint without these effects"
        )
    if spec.uses_whole_image:
        note(
            f"{spec.id}: this network normalises over each tile, so the result depends on the tiles; "
            "a network trained with norm=none gives the same result for all tiles"
        )
