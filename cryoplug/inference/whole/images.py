"""Denoise one micrograph as a whole on the device: prepare it there, denoise it, and copy it back."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from cryoplug.core.fourier_filter import REACH
from cryoplug.core.grey_scale import normalization_remark
from cryoplug.core.mean_kept import TOLERATED
from cryoplug.core.micrograph import MicrographSource
from cryoplug.core.normalization import Normalization, check_usable, fit_to
from cryoplug.core.repairs import Repairs
from cryoplug.core.statistics import PixelStatistics
from cryoplug.core.thumbnail import BeforeAfter, SmallImage, thumbnail_step
from cryoplug.formats.mrc import StoredStatistics
from cryoplug.inference.likeness import SIGNS_ON_A_GPU, look, shows_no_particles
from cryoplug.inference.messages import DenoiseJob
from cryoplug.inference.regrid import GridPlan
from cryoplug.inference.target import to_grey_values
from cryoplug.inference.whole.pixels import (
    DevicePixels,
    clipped_count,
    decode,
    normalised,
    repair,
    restored,
    written_numbers,
)
from cryoplug.inference.whole.regrid import finish, resample_image
from cryoplug.kernels.recording import Recorded
from cryoplug.machine.devices import device_errors, memory_for_tensors, only
from cryoplug.machine.room import Room
from cryoplug.machine.streams import QueuedWork, Streams

if TYPE_CHECKING:
    from cryoplug.inference.denoiser import Denoiser

MOST_PIXELS = 1 << 28
"""Most pixels of a whole micrograph (16384x16384), also on the network's grid; larger ones go in bands."""
MOST_RECORDED = 1 << 25
"""Pixels, of the larger grid: what is larger keeps a GPU busy, and a recording keeps the memory of all steps for itself."""
DEVICE_BYTES_PER_PIXEL = 48
"""Device memory per pixel of the network's grid: stored, normalised and denoised pixels, and sorting with 8-byte indices."""
REGRID_BYTES_PER_PIXEL = 40
"""More device memory per pixel if the grids differ or raw pixels are kept: pixels, Fourier terms twice, cuFFT's workspace, and
frequencies in float64. It counts the larger side of both grids in each direction."""


@dataclass(frozen=True)
class MeasuredOnDevice:
    """The facts about a micrograph that was read and measured."""

    job: DenoiseJob
    """The job."""
    started: float
    """Time of the start, by `time.perf_counter`."""
    source: MicrographSource
    """The source, for names, numbers and header; it is closed soon."""
    plan: GridPlan
    """The grids of the micrograph and of the network, with the pixel size to write."""
    normalization: Normalization
    """Normalization that was applied."""
    to_grey_values: Normalization
    """Normalization to invert after the network."""
    sigma_in: float
    """Standard deviation of the micrograph."""
    grey: str
    """Remark on its grey values; empty: none."""
    unlike_training: tuple[str, ...] = ()
    """Remarks on how it differs from the training data."""
    seen: PixelStatistics | None = None
    """Statistics of the network's input, whose mean the output must have; None: the mean is not corrected."""
    repairs: Repairs = field(default_factory=Repairs)
    """What was repaired before the network."""
    no_particles: bool = False
    """Whether particles are requested although the raw pixels show no sign of any."""


@dataclass(frozen=True)
class Prepared:
    """A micrograph on the device, ready for the network."""

    measured: MeasuredOnDevice
    """The facts about it."""
    pixels: torch.Tensor
    """Input of the network, ``(y, x)``."""
    levels: torch.Tensor
    """Scale and offset of what is undone after the network; what `_keep_mean` wants to know; the scale before it. float64."""
    raw: torch.Tensor | None = None
    """The micrograph, if it is needed again."""
    small: torch.Tensor | None = None
    """Its thumbnail, if wanted."""
    queued: QueuedWork = field(default_factory=QueuedWork)
    """Work that must be done before the tensors are valid."""


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


class WholeImages:
    """Prepares and computes micrographs on a denoiser's device.

    Parameters
    ----------
    denoiser
        The network.
    dtype
        Type of the written pixels: ``float32`` or ``float16``.
    thumbnails
        Whether to make thumbnails.
    """

    def __init__(self, denoiser: Denoiser, dtype: str, *, thumbnails: bool = False) -> None:
        self._thumbnails = thumbnails
        self._denoiser = denoiser
        self.device = denoiser.device
        self._on_gpu = denoiser.device.type == "cuda"
        self._streams = Streams(denoiser.device)
        self._recorded = Recorded()
        self._signs = itertools.count()
        self.stored = np.dtype(dtype).newbyteorder("<")
        """Type of a written pixel."""
        self._torch_dtype = {"float32": torch.float32, "float16": torch.float16}[dtype]
        self._room = Room(self._most_bytes())

    def _looks_at_sign(self) -> bool:
        return not self._on_gpu or next(self._signs) < SIGNS_ON_A_GPU

    def takes(self, plan: GridPlan) -> bool:
        """Tell whether a micrograph is small enough, on its own grid and on the network's."""
        if max(map(math.prod, (plan.shape, plan.network_shape))) > MOST_PIXELS:
            return False
        return self._room.size_bytes is None or device_bytes(plan) <= self._room.size_bytes

    def _most_bytes(self) -> int | None:
        if not self._on_gpu:
            return None
        with device_errors(), only(self.device):
            return room_to_prepare(memory_for_tensors(self.device))

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
        plan: GridPlan,
    ) -> Prepared:
        """Copy a micrograph to the device, bring it to the network's grid, measure and normalise it there; from any thread.

        It waits while the device has no room for it beside others.

        Parameters
        ----------
        stored
            Bytes of its pixels in a host buffer, which is free again when this returns.
        dtype
            Type of a pixel in the buffer.
        source, job, started, plan
            See `MeasuredOnDevice`.

        Raises
        ------
        PixelError
            The pixels cannot be normalised.
        OutOfDeviceMemory
            A whole image does not fit into memory.
        DeviceError
            The device failed.
        """
        with (
            self._room.taken(device_bytes(plan)),
            torch.inference_mode(),
            device_errors(),
            only(self.device),
            self._streams.own(),
        ):
            # A copy on the CPU, too: the buffer is lent to the next micrograph while this one's raw pixels are still needed.
            raw = decode(stored.to(self.device, non_blocking=True, copy=True), dtype, source.shape)
            repairs = Repairs() if self._denoiser.bare else repair(raw)
            small = _thumbnail(raw) if self._thumbnails else None
            pixels, before = resample_image(raw, plan.network_shape), DevicePixels(raw, source.path)
            on_device = DevicePixels(pixels, source.path, self._denoiser.normalize)
            # It waits for the statistics, and with them for the copy of the pixels.
            DevicePixels.measure_all(*([] if pixels is raw else [before]), on_device)
            if pixels is not raw:
                check_usable(before, before.statistics())
            normalization, statistics = fit_to(on_device, self._denoiser.normalize), on_device.statistics()
            normalization, unlike = look(
                on_device, normalization, self._denoiser.checkpoint, sign=self._looks_at_sign()
            )
            clipped = int(clipped_count(pixels, normalization)) if normalization.kind == "percentile" else 0
            measured = MeasuredOnDevice(
                job,
                started,
                source,
                plan,
                normalization,
                to_grey_values(normalization, statistics.mean, self._denoiser.target),
                (statistics if pixels is raw else before.statistics()).std,
                normalization_remark(normalization, clipped=clipped / pixels.numel(), sigma=statistics.std),
                tuple(unlike),
                seen=None if self._denoiser.bare else statistics,
                repairs=repairs,
                no_particles=not plan.regrid.needs_raw
                and shows_no_particles(on_device, normalization, self._denoiser.target),
            )
            levels = torch.tensor(_levels(measured), dtype=torch.float64, device=self.device)
            seen = normalised(pixels, normalization, levels[4])
            return Prepared(
                measured, seen, levels, raw if plan.regrid.needs_raw else None, small, self._streams.reached()
            )

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
        with torch.inference_mode(), device_errors(), only(self.device):
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
        shift = _keep_mean(denoised, levels[2], levels[3]) if measured.seen else levels.new_zeros(1)
        denoised = finish(denoised, raw, measured.plan)
        written = denoised.to(self._torch_dtype)
        all_fit = torch.stack(fits).all() if fits else torch.ones((), device=denoised.device)
        numbers = torch.cat([written_numbers(denoised, written), shift, all_fit.double()[None]])
        return (written, numbers, _thumbnail(denoised)) if self._thumbnails else (written, numbers)

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


def _thumbnail(image: torch.Tensor) -> torch.Tensor:
    """Make a thumbnail on the device, as `cryoplug.core.thumbnail` does."""
    step = thumbnail_step((image.shape[0], image.shape[1]))
    block = min(step, image.shape[0]), min(step, image.shape[1])
    return torch.nn.functional.avg_pool2d(image[None, None], block)[0, 0]


def _levels(measured: MeasuredOnDevice) -> list[float]:
    """Give `Prepared.levels`."""
    undone, seen = measured.to_grey_values, measured.seen
    kept = (seen.mean, TOLERATED * seen.std) if seen else (0.0, 0.0)
    return [undone.scale, undone.offset, *kept, measured.normalization.scale]


def _keep_mean(denoised: torch.Tensor, mean: torch.Tensor, tolerated: torch.Tensor) -> torch.Tensor:
    """Add the shift of `cryoplug.core.mean_kept.mean_shift`, without waiting for the device; give the shift as float64."""
    shift = mean - denoised.mean(dtype=torch.float64)
    wanted = shift.isfinite() & (shift.abs() > tolerated)
    shift = torch.where(wanted, shift, torch.zeros_like(shift))
    denoised += shift.float()
    return shift[None]


def room_to_prepare(free_bytes: int) -> int:
    """Give the device memory for all micrographs that are prepared at a time.

    Half of what is free is for the network, and a quarter for the micrograph that is computed.
    """
    return free_bytes // 4


def device_bytes(plan: GridPlan) -> int:
    """Give the device memory of a micrograph while it is prepared or computed, without the network's own, in bytes."""
    size_bytes = DEVICE_BYTES_PER_PIXEL * math.prod(plan.network_shape)
    if plan.does_nothing:
        return size_bytes
    largest = math.prod(map(max, plan.shape, plan.network_shape))
    if plan.regrid.highpass_angstrom is not None and plan.written_angstrom is not None:
        # Continued on all sides, as far as the filter reaches.
        reach = 2 * math.ceil(REACH * plan.regrid.highpass_angstrom / plan.written_angstrom)
        largest = max(largest, math.prod(side + reach for side in plan.written_shape))
    return size_bytes + REGRID_BYTES_PER_PIXEL * largest
