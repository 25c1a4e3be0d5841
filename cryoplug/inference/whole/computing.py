"""Compute prepared micrographs on the device: the network, grey values, grid of the result, and the copy back to the host."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from cryoplug.core.thumbnail import BeforeAfter, SmallImage
from cryoplug.formats.mrc import StoredStatistics
from cryoplug.inference.regrid import GridPlan
from cryoplug.inference.whole.pixels import keep_mean, restored, thumbnail, written_numbers
from cryoplug.inference.whole.preparing import MeasuredOnDevice, Prepared
from cryoplug.inference.whole.regrid import finish
from cryoplug.kernels.recording import Recorded
from cryoplug.machine.devices import device_errors, only
from cryoplug.machine.streams import Streams

if TYPE_CHECKING:
    from cryoplug.inference.denoiser import Denoiser

MOST_RECORDED = 1 << 25
"""Pixels, of the larger grid: what is larger keeps a GPU busy, and a recording keeps the memory of all steps for itself."""


@dataclass(frozen=True)
class Computed:
    """A denoised micrograph in a host buffer, or being copied there."""

    measured: MeasuredOnDevice
    """The facts about the source micrograph."""
    buffer: torch.Tensor
    """Pixels to write; valid after `wait`."""
    numbers: torch.Tensor
    """Numbers of `written_numbers`, the value added to keep the mean, and 1 if half precision was enough; valid after `wait`."""
    wait: Callable[[], None]
    """Returns when the copy is complete."""
    small: tuple[torch.Tensor, torch.Tensor] | None = None
    """Thumbnails of micrograph and result, if wanted; valid after `wait`."""

    def before_after(self) -> BeforeAfter | None:
        """Give the thumbnails; None when they were not wanted."""
        if self.small is None:
            return None
        plan = self.measured.plan
        raw, denoised = (image.numpy() for image in self.small)
        return BeforeAfter(SmallImage(raw, plan.shape), SmallImage(denoised, plan.written_shape))

    def statistics(self) -> StoredStatistics | None:
        """Give the statistics for the header; None if a pixel is not finite."""
        values = self._numbers[:4]
        return StoredStatistics(*values) if all(map(math.isfinite, values)) else None

    @functools.cached_property
    def _numbers(self) -> list[float]:
        found: list[float] = self.numbers.tolist()
        return found

    @property
    def fits(self) -> bool:
        """Whether half precision was enough for the network; if not, the micrograph must be computed again."""
        return bool(self._numbers[7])

    @property
    def largest(self) -> float:
        """Largest absolute pixel value before rounding to the type of the file."""
        return self._numbers[4]

    @property
    def mean_shift(self) -> float:
        """Value added to keep the mean, in grey values."""
        return self._numbers[6]

    @property
    def rounding_rms(self) -> float:
        """Root mean square of the rounding to the type of the file."""
        return math.sqrt(self._numbers[5])


class Computer:
    """Computes prepared micrographs on a denoiser's device.

    Parameters
    ----------
    denoiser
        The network.
    streams
        The streams of its device.
    dtype
        Type of the written pixels: ``float32`` or ``float16``.
    thumbnails
        Whether to make thumbnails.
    """

    def __init__(self, denoiser: Denoiser, streams: Streams, dtype: str, *, thumbnails: bool = False) -> None:
        self._thumbnails = thumbnails
        self._denoiser = denoiser
        self._on_gpu = denoiser.device.type == "cuda"
        self._streams = streams
        self._recorded = Recorded()
        self._stored = np.dtype(dtype).newbyteorder("<")
        self._torch_dtype = {"float32": torch.float32, "float16": torch.float16}[dtype]

    def written_bytes(self, shape: tuple[int, int]) -> int:
        """Give the size of the pixels of a result."""
        return shape[0] * shape[1] * self._stored.itemsize

    def compute(
        self, prepared: Prepared, target: torch.Tensor, should_stop: Callable[[], bool], *, again: bool = False
    ) -> Computed:
        """Denoise a micrograph, without waiting for the device; from one thread.

        Parameters
        ----------
        prepared
            The micrograph.
        target
            Host buffer for the result.
        should_stop
            Asked before each tile.
        again
            Because it did not `Computed.fits` before: in float32 where it does not. That waits for the device.

        Raises
        ------
        OutOfDeviceMemory
            A whole image does not fit into memory.
        DeviceError
            The device failed.
        Interrupted
            `should_stop` returned True.
        """
        with torch.inference_mode(), device_errors(), only(self._denoiser.device):
            prepared.queued.hand_over(prepared.pixels, prepared.levels, prepared.raw, prepared.small)
            measured = prepared.measured

            def result(pixels: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, ...]:
                fits: list[torch.Tensor] = []
                made = self._denoiser.forward_on_device(pixels, should_stop, None if again else fits)
                return self._result(made, levels, prepared.raw, measured, fits)

            inputs = prepared.pixels, prepared.levels
            if again or not self._is_worth_recording(measured.plan):
                written, numbers, *after = result(*inputs)
            else:
                written, numbers, *after = self._recorded(self._kind(measured), result, *inputs)
            small = () if prepared.small is None else (prepared.small, *after)
            size = self.written_bytes(measured.plan.written_shape)
            with self._streams.back(written, numbers, *small):
                target[:size].copy_(written.flatten().view(torch.uint8), non_blocking=True)
                on_host = [self._to_host(tensor) for tensor in (numbers, *small)]
                queued = self._streams.reached()
            thumbnails = (on_host[1], on_host[2]) if small else None
            return Computed(measured, target, on_host[0], queued.wait, thumbnails)

    def forget_recording(self) -> None:
        """Give back the memory of a recording: for when there is too little for something else."""
        self._recorded.forget()

    def _result(
        self,
        made: torch.Tensor,
        levels: torch.Tensor,
        raw: torch.Tensor | None,
        measured: MeasuredOnDevice,
        fits: list[torch.Tensor],
    ) -> tuple[torch.Tensor, ...]:
        """Turn the network's output into the pixels to write, the numbers of `Computed`, and the thumbnail if wanted."""
        denoised = restored(made, measured.to_grey_values, levels[:2])
        shift = keep_mean(denoised, levels[2], levels[3]) if measured.seen else levels.new_zeros(1)
        denoised = finish(denoised, raw, measured.plan)
        written = denoised.to(self._torch_dtype)
        all_fit = torch.stack(fits).all() if fits else torch.ones((), device=denoised.device)
        numbers = torch.cat([written_numbers(denoised, written), shift, all_fit.double()[None]])
        return (written, numbers, thumbnail(denoised)) if self._thumbnails else (written, numbers)

    def _is_worth_recording(self, plan: GridPlan) -> bool:
        """Tell whether the host would limit the speed; not with filters or raw pixels, which need numbers from the host."""
        asks_host = plan.regrid.filters or plan.regrid.needs_raw
        return self._on_gpu and not asks_host and max(map(math.prod, (plan.shape, plan.network_shape))) <= MOST_RECORDED

    def _kind(self, measured: MeasuredOnDevice) -> Hashable:
        """Give a key that is equal for micrographs with exactly the same launches."""
        plan, undone = measured.plan, measured.to_grey_values
        grids = plan.shape, plan.network_shape, plan.written_shape
        levels = undone.scale != 1.0, undone.offset != 0.0, measured.seen is None
        return grids, levels, self._denoiser.network.memory_state

    def _to_host(self, numbers: torch.Tensor) -> torch.Tensor:
        host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=self._on_gpu)
        host.copy_(numbers, non_blocking=True)
        return host
