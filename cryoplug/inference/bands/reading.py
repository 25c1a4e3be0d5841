"""The pipeline's first thread: open, measure, normalise and read micrographs band by band."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from cryoplug.core.fourier_crop import resample_source
from cryoplug.core.grey_scale import normalization_remark
from cryoplug.core.micrograph import ArrayMicrograph, ImageF32, MicrographSource, MovieSource
from cryoplug.core.normalization import MeasuredSource, Normalization, check_usable, fit_to
from cryoplug.core.pixel_size import PixelSize
from cryoplug.core.repairs import RepairedMicrograph, Repairs
from cryoplug.core.statistics import PixelStatistics, scan_pixels
from cryoplug.errors import InputError, SeveralImagesError, ShapeError, StorageError, UsageError
from cryoplug.formats.mrc import MrcHeader
from cryoplug.formats.registry import open_micrograph, open_movie
from cryoplug.inference.bands.sections import refuse_movies_and_volumes
from cryoplug.inference.likeness import look, shows_no_particles
from cryoplug.inference.messages import Begin, DenoiseJob, End, Failed, Message, Rows, Sections
from cryoplug.inference.regrid import GridPlan
from cryoplug.inference.remarks import remarks_on_reading
from cryoplug.inference.resampling import resample_on_host
from cryoplug.inference.target import to_grey_values
from cryoplug.machine.channel import Channel, Closed

if TYPE_CHECKING:
    from cryoplug.inference.denoiser import Denoiser

HELD_PIXELS = 1 << 20
"""A micrograph of at most this many pixels is read once and kept; reading 512 x 512 by 77 calls took 4 ms."""
CHUNK_PIXELS = 1 << 21
"""Most pixels of a stack in memory at a time (8 MB): five hundred particles of 64 x 64, or one view of a tilt series."""


def read_all(
    jobs: Iterable[DenoiseJob],
    denoiser: Denoiser,
    out: Channel[Message],
    should_stop: Callable[[], bool],
) -> None:
    """Send all jobs one after another; a job that cannot be read becomes `Failed`."""

    def given_up() -> bool:
        return out.aborted or should_stop()

    try:
        for job in jobs:
            started = time.perf_counter()
            try:
                try:
                    source = open_source(job)
                except SeveralImagesError:
                    for message in _read_stack(job, denoiser, started=started):
                        if given_up():
                            raise Closed from None
                        out.put(message)
                    continue
                with source:
                    _read_one(job, _Guarded(source, given_up), denoiser, out, started=started)
            except (InputError, StorageError, UsageError) as error:
                out.put(Failed(job, started, error))
    except Closed:
        pass
    finally:
        out.close()


def open_source(job: DenoiseJob) -> MicrographSource:
    """Open the micrograph of a job; raises `SeveralImagesError` if it is a stack."""
    section = {} if job.section is None else {"section": job.section}
    source = open_micrograph(job.source, **section)
    try:
        job.check_sections(1)
    except ShapeError:
        source.close()
        raise
    return source


class _Guarded(MicrographSource):
    """A source whose reading ends, also for statistics, as soon as the pipeline stops; a small source is read once."""

    def __init__(self, source: MicrographSource, given_up: Callable[[], bool]) -> None:
        self.path, self.shape, self.dtype = source.path, source.shape, source.dtype
        self.pixel_size_angstrom, self.warnings = source.pixel_size_angstrom, source.warnings
        header = getattr(source, "header", None)
        self.header = header if isinstance(header, MrcHeader) else None
        self._source = source
        self._given_up = given_up
        self._is_small = self.shape[0] * self.shape[1] <= HELD_PIXELS
        self._held: ImageF32 | None = None

    def read_rows(self, start: int, stop: int) -> ImageF32:
        """Read rows, or raise `Closed`."""
        if self._given_up():
            raise Closed
        if not self._is_small:
            return self._source.read_rows(start, stop)
        if self._held is None:
            self._held = self._source.read_rows(0, self.shape[0])
        return self._held[start:stop].copy()

    def close(self) -> None:
        """Do nothing; the caller that opened the source closes it."""


def _read_one(job: DenoiseJob, source: _Guarded, denoiser: Denoiser, out: Channel[Message], *, started: float) -> None:
    known = job.known_pixel_size(source.pixel_size_angstrom)
    plan = denoiser.regrid.plan(source.shape, known.angstrom, path=source.path)
    seen = source if denoiser.bare else RepairedMicrograph(source)
    pixels, raw, of_whole = _on_the_networks_grid(seen, plan)
    bands = denoiser.bands(pixels.shape)
    measured = MeasuredSource(pixels)
    normalization, statistics = fit_to(measured, denoiser.normalize), measured.statistics()
    normalization, unlike_training = look(pixels, normalization, denoiser.checkpoint)
    no_particles = raw is None and shows_no_particles(pixels, normalization, denoiser.target)
    out.put(
        Begin(
            job,
            started,
            shape=plan.written_shape,
            template=source.header,
            pixel_size_angstrom=plan.written_angstrom,
            pixel_size=known,
            to_grey_values=to_grey_values(normalization, statistics.mean, denoiser.target),
            grid=None if plan.does_nothing else plan,
            raw=raw,
        )
    )
    clipped = 0
    for band in bands:
        rows = pixels.read_rows(band.read.y0, band.read.y1)
        inner = rows[band.crop.y0 : band.crop.y1]
        clipped += _count_clipped(inner, normalization)
        out.put(Rows(band, normalization.apply(rows)))
    part = clipped / (pixels.shape[0] * pixels.shape[1])
    repairs = seen.repairs if isinstance(seen, RepairedMicrograph) else Repairs()
    grey = normalization_remark(normalization, clipped=part, sigma=statistics.std)
    message = remarks_on_reading(
        warnings=source.warnings,
        plan=plan,
        checkpoint=denoiser.checkpoint,
        grey_values=[grey, *unlike_training],
        repairs=repairs,
    )
    out.put(
        End(
            message,
            (of_whole or statistics).std,
            seen=None if denoiser.bare else statistics,
            hot_pixels=len(repairs.hot),
            bad_border=repairs.border.lines,
            no_particles=no_particles,
        )
    )


def _on_the_networks_grid(
    source: MicrographSource, plan: GridPlan
) -> tuple[MicrographSource, ImageF32 | None, PixelStatistics | None]:
    """Give the network's input, the micrograph if it is needed again, and its statistics if they were measured."""
    if plan.does_nothing:
        return source, None, None
    statistics = scan_pixels(source)
    check_usable(source, statistics)
    raw = np.empty(source.shape, np.float32) if plan.regrid.needs_raw else None

    def see(start: int, rows: ImageF32) -> None:
        if raw is not None:
            raw[start : start + len(rows)] = rows

    small = resample_source(source, plan.network_shape, see, resample=resample_on_host)
    return ArrayMicrograph(small, source.path), raw, statistics


def _read_stack(job: DenoiseJob, denoiser: Denoiser, *, started: float) -> Iterator[Message]:
    """Read a stack, and give the messages with which the pipeline denoises and writes it.

    Raises
    ------
    FormatError
        The file is a movie or a volume, and no list says that its sections are images.
    """
    if not job.is_stack:
        refuse_movies_and_volumes(job.source)
    with open_movie(job.source) as stack:
        job.check_sections(stack.frame_count)
        known = job.known_pixel_size(stack.pixel_size_angstrom)
        plan = denoiser.regrid.plan(stack.frame_shape, known.angstrom, path=job.source)
        yield begin_stack(job, stack, plan, known, started=started)
        for first, pixels in _chunks(stack):
            yield Sections(job, first + 1, pixels, plan)
        message = remarks_on_reading(warnings=stack.warnings, plan=plan, checkpoint=denoiser.checkpoint)
        yield End(message, math.nan)


def begin_stack(job: DenoiseJob, stack: MovieSource, plan: GridPlan, known: PixelSize, *, started: float) -> Begin:
    """Give the message with which the sections of a stack begin; they come in grey values."""
    header = getattr(stack, "header", None)
    return Begin(
        job,
        started,
        shape=plan.written_shape,
        template=header if isinstance(header, MrcHeader) else None,
        pixel_size_angstrom=plan.written_angstrom,
        pixel_size=known,
        to_grey_values=Normalization("none"),
        sections=stack.frame_count,
    )


def _chunks(stack: MovieSource) -> Iterator[tuple[int, ImageF32]]:
    count = max(1, CHUNK_PIXELS // (stack.frame_shape[0] * stack.frame_shape[1]))
    for first in range(0, stack.frame_count, count):
        yield first, stack.read_frames(first, min(first + count, stack.frame_count))


def _count_clipped(rows: np.ndarray, normalization: Normalization) -> int:
    if normalization.kind != "percentile":
        return 0
    low, high = normalization.offset, normalization.offset + normalization.scale
    return int(np.count_nonzero(rows < low)) + int(np.count_nonzero(rows > high))
