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
class Loaded:
    """A micrograph in a host buffer."""

    job: DenoiseJob
    """What is worked on."""
    started: float
    """When, by `time.perf_counter`."""
    source: MicrographSource
    """Closed already: its names, numbers and header."""
    pixel_size_angstrom: float | None
    """Sampling to write."""
    dtype: np.dtype
    """Of a pixel in the buffer."""
    buffer: torch.Tensor
    """Bytes of the pixels, row by row."""

    @property
    def size_bytes(self) -> int:
        """Of the pixels."""
        return self.source.shape[0] * self.source.shape[1] * self.dtype.itemsize


@dataclass(frozen=True)
class Computed:
    """A denoised micrograph in a host buffer, or on its way there."""

    loaded: Loaded
    """What it was made of."""
    normalization: Normalization
    """What was applied and undone."""
    sigma_in: float
    """Standard deviation of the micrograph."""
    clipped: float
    """Part of its pixels that the normalization clips, in [0, 1]."""
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
    """Computes micrographs one after another on a denoiser's device.

    Parameters
    ----------
    denoiser
        The network.
    dtype
        ``float32`` or ``float16``: what is written.
    """

    def __init__(self, denoiser: Denoiser, dtype: str) -> None:
        self._denoiser = denoiser
        self.device = denoiser.device
        self.on_gpu = denoiser.device.type == "cuda"
        self.stored = np.dtype(dtype).newbyteorder("<")
        """Type of a pixel that is written."""
        self._torch_dtype = {"float32": torch.float32, "float16": torch.float16}[dtype]
        self._most_pixels = MOST_PIXELS
        if self.on_gpu:
            with device_errors(), only(self.device):
                free = torch.cuda.mem_get_info(self.device)[0]
            self._most_pixels = min(MOST_PIXELS, free // 2 // DEVICE_BYTES_PER_PIXEL)

    def takes(self, shape: tuple[int, int]) -> bool:
        """Tell whether a micrograph is small enough."""
        return shape[0] * shape[1] <= self._most_pixels

    def written_bytes(self, shape: tuple[int, int]) -> int:
        """Give the size of the pixels of a result."""
        return shape[0] * shape[1] * self.stored.itemsize

    def compute(
        self,
        loaded: Loaded,
        target: torch.Tensor,
        loaded_was_copied: Callable[[], None],
        should_stop: Callable[[], bool],
    ) -> Computed:
        """Denoise a micrograph.

        Parameters
        ----------
        loaded
            The micrograph.
        target
            Host buffer for the result.
        loaded_was_copied
            Called once the buffer of `loaded` is not needed any more.
        should_stop
            Asked before each tile.

        Raises
        ------
        PixelError
            The pixels cannot be normalised.
        OutOfDeviceMemory
            There is no room for a whole image.
        DeviceError
            The device failed.
        Interrupted
            `should_stop` said yes.
        """
        with torch.inference_mode(), device_errors(), only(self.device):
            source = loaded.source
            stored = loaded.buffer[: loaded.size_bytes].to(self.device, non_blocking=True)
            pixels = decode(stored, loaded.dtype, source.shape)
            del stored
            normalization, statistics = fit_to(DevicePixels(pixels, source.path), self._denoiser.normalize)
            # The statistics were waited for, so the copy before them is complete; without a GPU there was none.
            clipped = 0
            if normalization.kind == "percentile":
                clipped = int(clipped_count(pixels, normalization))
            pixels = normalised(pixels, normalization)
            loaded_was_copied()
            denoised = restored(self._denoiser.forward_on_device(pixels, should_stop), normalization)
            del pixels
            written = denoised.to(self._torch_dtype)
            numbers = self._to_host(written_numbers(denoised, written))
            size = self.written_bytes(source.shape)
            target[:size].copy_(written.flatten().view(torch.uint8), non_blocking=True)
            return Computed(
                loaded,
                normalization,
                statistics.std,
                clipped / (source.shape[0] * source.shape[1]),
                target,
                numbers,
                self._waiter(),
            )

    def _to_host(self, numbers: torch.Tensor) -> torch.Tensor:
        host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=self.on_gpu)
        host.copy_(numbers, non_blocking=True)
        return host

    def _waiter(self) -> Callable[[], None]:
        if not self.on_gpu:
            return lambda: None
        event = torch.cuda.Event()
        event.record()
        return event.synchronize
