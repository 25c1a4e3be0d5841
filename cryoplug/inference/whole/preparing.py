"""Prepare whole micrographs on the device: bring them to the network's grid, repair, measure and normalise them there."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from cryoplug.core.grey_scale import normalization_remark
from cryoplug.core.mean_kept import TOLERATED
from cryoplug.core.micrograph import MicrographSource
from cryoplug.core.normalization import Normalization, check_usable, fit_to
from cryoplug.core.repairs import Repairs
from cryoplug.core.statistics import PixelStatistics
from cryoplug.inference.likeness import SIGNS_ON_A_GPU, look, shows_no_particles
from cryoplug.inference.messages import DenoiseJob
from cryoplug.inference.regrid import GridPlan
from cryoplug.inference.target import to_grey_values
from cryoplug.inference.whole.pixels import DevicePixels, clipped_count, decode, normalised, repair, thumbnail
from cryoplug.inference.whole.regrid import resample_image
from cryoplug.inference.whole.room import device_bytes, fits_as_a_whole, room_to_prepare
from cryoplug.machine.devices import device_errors, memory_for_tensors, only
from cryoplug.machine.room import Room
from cryoplug.machine.streams import QueuedWork, Streams

if TYPE_CHECKING:
    from cryoplug.inference.denoiser import Denoiser


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
    """Scale and offset of what is undone after the network; what `keep_mean` wants to know; the scale before it. float64."""
    raw: torch.Tensor | None = None
    """The micrograph, if it is needed again."""
    small: torch.Tensor | None = None
    """Its thumbnail, if wanted."""
    queued: QueuedWork = field(default_factory=QueuedWork)
    """Work that must be done before the tensors are valid."""


class Preparer:
    """Prepares micrographs on a denoiser's device.

    Parameters
    ----------
    denoiser
        The network.
    streams
        The streams of its device.
    thumbnails
        Whether to make thumbnails.
    """

    def __init__(self, denoiser: Denoiser, streams: Streams, *, thumbnails: bool = False) -> None:
        self._thumbnails = thumbnails
        self._denoiser = denoiser
        self._device = denoiser.device
        self._streams = streams
        self._signs = itertools.count()
        self._room = Room(self._most_bytes())

    def takes(self, plan: GridPlan) -> bool:
        """Tell whether a micrograph is small enough, on its own grid and on the network's."""
        return fits_as_a_whole(plan, self._room.size_bytes)

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
            only(self._device),
            self._streams.own(),
        ):
            # A copy on the CPU, too: the buffer is lent to the next micrograph while this one's raw pixels are still needed.
            raw = decode(stored.to(self._device, non_blocking=True, copy=True), dtype, source.shape)
            repairs = Repairs() if self._denoiser.bare else repair(raw)
            small = thumbnail(raw) if self._thumbnails else None
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
            levels = torch.tensor(_levels(measured), dtype=torch.float64, device=self._device)
            seen = normalised(pixels, normalization, levels[4])
            return Prepared(
                measured, seen, levels, raw if plan.regrid.needs_raw else None, small, self._streams.reached()
            )

    def _most_bytes(self) -> int | None:
        if self._device.type != "cuda":
            return None
        with device_errors(), only(self._device):
            return room_to_prepare(memory_for_tensors(self._device))

    def _looks_at_sign(self) -> bool:
        return self._device.type != "cuda" or next(self._signs) < SIGNS_ON_A_GPU


def _levels(measured: MeasuredOnDevice) -> list[float]:
    """Give `Prepared.levels`."""
    undone, seen = measured.to_grey_values, measured.seen
    kept = (seen.mean, TOLERATED * seen.std) if seen else (0.0, 0.0)
    return [undone.scale, undone.offset, *kept, measured.normalization.scale]
