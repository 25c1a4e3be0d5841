"""Denoise a micrograph that lies on the device as a whole: it is copied there once, and back once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from cryoplug.core.micrograph import MicrographSource
from cryoplug.core.normalization import Normalization, fit_to
from cryoplug.formats.mrc import StoredStatistics
from cryoplug.inference.appearance import look
from cryoplug.inference.device_pixels import (
    DevicePixels,
    clipped_count,
    decode,
    normalised,
    restored,
    written_numbers,
)
from cryoplug.inference.devices import device_errors, only
from cryoplug.inference.messages import DenoiseJob

if TYPE_CHECKING:
    from cryoplug.inference.denoiser import Denoiser

MOST_PIXELS = 1 << 28
"""Larger micrographs than 16384x16384 go in bands."""
DEVICE_BYTES_PER_PIXEL = 48
"""Stored, normalised and denoised pixels, and the sorting of them with 8-byte places."""


@dataclass(frozen=True)
class Measured:
    """What is known of a micrograph that was read and measured."""

    job: DenoiseJob
    """What is worked on."""
    started: float
    """When, by `time.perf_counter`."""
    source: MicrographSource
    """Closed soon: its names, numbers and header."""
    pixel_size_angstrom: float | None
    """Sampling to write."""
    normalization: Normalization
    """What was applied."""
    sigma_in: float
    """Standard deviation of the micrograph."""
    clipped: float
    """Part of its pixels that the normalization clips, in [0, 1]."""
    unlike_training: tuple[str, ...] = ()
    """How it differs from what the checkpoint was trained on."""


@dataclass(frozen=True)
class Prepared:
    """A micrograph on the device, ready for the network."""

    measured: Measured
    """What is known of it."""
    pixels: torch.Tensor
    """What the network sees, ``(y, x)``."""


@dataclass(frozen=True)
class Computed:
    """A denoised micrograph in a host buffer, or on its way there."""

    measured: Measured
    """What it was made of."""
    buffer: torch.Tensor
    """Pixels as they are written; valid after `wait`."""
    numbers: torch.Tensor
    """See `written_numbers`; valid after `wait`."""
    wait: Callable[[], None]
    """Returns when the copy is complete."""

    def statistics(self) -> StoredStatistics | None:
        """Give what the header says; None when a pixel is not finite."""
        values = self.numbers[:4].tolist()
        return StoredStatistics(*values) if all(map(math.isfinite, values)) else None

    @property
    def largest(self) -> float:
        """Largest size of a pixel before it was rounded to the type of the file."""
        return float(self.numbers[4])

    @property
    def rounding_rms(self) -> float:
        """By how much that rounded, root mean square."""
        return math.sqrt(float(self.numbers[5]))


class WholeImages:
    """Prepares and computes micrographs on a denoiser's device.

    Parameters
    ----------
    denoiser
        The network.
    dtype
        ``float32`` or ``float16``: what is written.
    at_once
        How many threads call `prepare` at a time.
    """

    def __init__(self, denoiser: Denoiser, dtype: str, *, at_once: int) -> None:
        self._denoiser = denoiser
        self.device = denoiser.device
        self._on_gpu = denoiser.device.type == "cuda"
        self.stored = np.dtype(dtype).newbyteorder("<")
        """Type of a pixel that is written."""
        self._torch_dtype = {"float32": torch.float32, "float16": torch.float16}[dtype]
        self._most_pixels = MOST_PIXELS
        if self._on_gpu:
            with device_errors(), only(self.device):
                free = torch.cuda.mem_get_info(self.device)[0]
            self._most_pixels = min(MOST_PIXELS, free // 2 // (DEVICE_BYTES_PER_PIXEL * at_once))

    def takes(self, shape: tuple[int, int]) -> bool:
        """Tell whether a micrograph is small enough."""
        return shape[0] * shape[1] <= self._most_pixels

    def written_bytes(self, shape: tuple[int, int]) -> int:
        """Give the size of the pixels of a result."""
        return shape[0] * shape[1] * self.stored.itemsize

    def prepare(
        self,
        stored: torch.Tensor,
        dtype: np.dtype,
        source: MicrographSource,
        *,
        job: DenoiseJob,
        started: float,
        pixel_size_angstrom: float | None,
    ) -> Prepared:
        """Copy a micrograph to the device, measure it and normalise it there; from any thread.

        Parameters
        ----------
        stored
            Bytes of its pixels in a host buffer, which is not needed any more when this returns.
        dtype
            Of a pixel in it.
        source, job, started, pixel_size_angstrom
            See `Measured`.

        Raises
        ------
        PixelError
            The pixels cannot be normalised.
        OutOfDeviceMemory
            There is no room for a whole image.
        DeviceError
            The device failed.
        """
        with torch.inference_mode(), device_errors(), only(self.device):
            pixels = decode(stored.to(self.device, non_blocking=True), dtype, source.shape)
            # It waits for the statistics, and with them for the copy before them.
            on_device = DevicePixels(pixels, source.path)
            normalization, statistics = fit_to(on_device, self._denoiser.normalize)
            normalization, unlike = look(on_device, normalization, self._denoiser.checkpoint)
            clipped = int(clipped_count(pixels, normalization)) if normalization.kind == "percentile" else 0
            part = clipped / pixels.numel()
            measured = Measured(
                job, started, source, pixel_size_angstrom, normalization, statistics.std, part, tuple(unlike)
            )
            return Prepared(measured, normalised(pixels, normalization))

    def compute(self, prepared: Prepared, target: torch.Tensor, should_stop: Callable[[], bool]) -> Computed:
        """Denoise a micrograph; from one thread.

        Parameters
        ----------
        prepared
            The micrograph.
        target
            Host buffer for the result.
        should_stop
            Asked before each tile.

        Raises
        ------
        OutOfDeviceMemory
            There is no room for a whole image.
        DeviceError
            The device failed.
        Interrupted
            `should_stop` said yes.
        """
        with torch.inference_mode(), device_errors(), only(self.device):
            denoised = restored(
                self._denoiser.forward_on_device(prepared.pixels, should_stop), prepared.measured.normalization
            )
            written = denoised.to(self._torch_dtype)
            numbers = self._to_host(written_numbers(denoised, written))
            size = self.written_bytes(prepared.measured.source.shape)
            target[:size].copy_(written.flatten().view(torch.uint8), non_blocking=True)
            return Computed(prepared.measured, target, numbers, self._waiter())

    def _to_host(self, numbers: torch.Tensor) -> torch.Tensor:
        host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=self._on_gpu)
        host.copy_(numbers, non_blocking=True)
        return host

    def _waiter(self) -> Callable[[], None]:
        if not self._on_gpu:
            return lambda: None
        event = torch.cuda.Event()
        event.record()
        return event.synchronize
