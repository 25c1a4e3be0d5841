"""A checkpoint's network for images of any size, in bands of rows cut into tiles; the result equals that of the whole image."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cryoplug.core.micrograph import ImageF32
from cryoplug.core.tiling import Tile
from cryoplug.errors import DeviceError
from cryoplug.inference.network.band_network import BandNetwork
from cryoplug.inference.network.batches import Batches
from cryoplug.inference.network.borders import border_width, continued_on_device
from cryoplug.inference.network.cutting import Cutting, usual_tile
from cryoplug.inference.network.device_image import DeviceImage
from cryoplug.inference.network.fastest import Fits, Network
from cryoplug.inference.network.memory_plan import (
    plan_memory,
    resident_bytes,
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
    OutOfDeviceMemory,
    device_errors,
    hidden_gpu_note,
    only,
    resolve_device,
)
from cryoplug.models.checkpoint import Checkpoint
from cryoplug.models.registry import ModelSpec

SHALLOW_LAYERS = 4
"""Most layers for which the faster order of summation is used; see `PreparedNetwork`."""
BATCH_PIXELS = 1 << 16
"""Pixels of small images that go through a network at once on a CPU, if a tile has fewer. Images of 64 x 64, `cryo_cnn`, one
core: 0.38 ms per image; with half as many pixels 0.45 (more calls), with eight times as many 0.48 (beyond the cache)."""
MOST_SECTIONS = 4
"""Most parts of a stack in work at once."""


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
        multiple = spec.size_multiple
        self._overlap = -(-spec.receptive_field_px // multiple) * multiple
        as_founded = checkpoint.founding and self.normalize == "percentile"
        self.bare = (self.normalize == "none" or as_founded) if bare is None else bare
        """Whether the network is applied without corrections, as in the founding program: hot pixels are not repaired,
        borders not continued, the mean not kept."""
        self._border = 0 if self.bare else border_width(self._overlap, multiple)
        _note_oddities(spec, note, as_founded=self.bare and as_founded)
        on_cpu = self.device.type == "cpu"
        self._cutting = Cutting(
            (asked.tile, asked.tile) if asked.tile else usual_tile(on_cpu=on_cpu, overlap_px=self._overlap),
            overlap_px=self._overlap,
            multiple=multiple,
            border_px=self._border,
            sharing_threads=self.threads if on_cpu else 0,
        )
        if on_cpu:
            keep_allocator_memory()
        self._workers = one_core_workers(self.threads) if on_cpu else None
        self.network = self._loaded()
        self._tile_network = TileNetwork(self.network, multiple=multiple, tta=self.tta)
        self._device_image = DeviceImage(
            checkpoint, self._tile_network, self.device, overlap=self._overlap, tile=asked.tile
        )
        self._batches = Batches(self._tile_network, self.device, border=self._border)
        self._fit_into(asked.max_memory_bytes)
        rolling = None
        if self._workers is not None and self._cutting.plan is None and not asked.tile:
            rolling = self._workers.submit(
                rolling_network,
                self.network,
                multiple=multiple,
                tta=self.tta,
                workers=self._workers,
                threads=self.threads,
            ).result()
        self._cutting.rolled = rolling is not None
        self._band_network = BandNetwork(
            self._tile_network, self._cutting, self.device, workers=self._workers, rolling=rolling, note=note
        )

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
        return self._cutting.bands(shape)

    def tile_borders(
        self, shape: tuple[int, int], *, pixel_size_angstrom: float | None = None
    ) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Give the first rows and first columns of the tiles of an image ``(y, x)``.

        None if the network works on another grid than the image.
        """
        if not self.regrid.plan(shape, pixel_size_angstrom, path=Path("<array>")).does_nothing:
            return None
        return self._cutting.borders(shape)

    def bands_at_once(self, shape: tuple[int, int]) -> int:
        """Give the number of bands of an image ``(y, x)`` to `start` before waiting for the first, so that no core is idle."""
        if self._workers is None or self.threads == 1 or self._cutting.rolled:
            return 1
        return 1 + -(-self.threads // len(self._cutting.tiles_of(self.bands(shape)[0])))

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
        return self._band_network.start(rows, band, should_stop)

    def is_one_tile(self, shape: tuple[int, int]) -> bool:
        """Tell whether an image ``(y, x)`` is computed in one piece."""
        return self._cutting.is_one_tile(shape)

    def sections_at_once(self, shape: tuple[int, int]) -> int:
        """Give the number of parts of a stack of images ``(y, x)`` to begin before waiting for the first.

        On a GPU, measuring small images takes as long as computing them, so one part is measured while another is computed.
        """
        if self.threads == 1 or self._cutting.plan is not None or not self.is_one_tile(shape):
            return 1
        return 2 if self.device.type == "cpu" else min(self.threads, MOST_SECTIONS)

    def many(self, images: ImageF32, should_stop: Callable[[], bool] = lambda: False) -> ImageF32:
        """Run the network over many normalised images ``(n, y, x)`` at a time; each must fit into one tile, see `is_one_tile`."""
        pixels = self._cutting.tile[0] * self._cutting.tile[1]
        if self._workers is not None and self._cutting.plan is None and not self.settings.tile:
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

    def _fit_into(self, limit_bytes: int | None) -> None:
        """Choose tiles and threads that need no more than this memory."""
        if limit_bytes is None:
            return
        if self.device.type != "cpu":
            self._note(f"--max-memory counts only on the CPU; {self.device} takes smaller tiles when its own runs out")
            return
        plan = plan_memory(
            limit_bytes,
            in_use_bytes=resident_bytes(),
            channels=widest_layer(self.checkpoint),
            overlap_px=self._overlap,
            tile=self._cutting.tile,
            threads=self.threads,
        )
        self.threads = plan.threads
        self._cutting = replace(self._cutting, tile=plan.tile, sharing_threads=plan.threads, plan=plan)


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
