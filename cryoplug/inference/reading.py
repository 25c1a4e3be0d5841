"""The pipeline's first thread: open, measure, normalise and read micrographs band by band."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from cryoplug.core.fourier_crop import resample_source
from cryoplug.core.micrograph import ArrayMicrograph, ImageF32, MicrographSource
from cryoplug.core.normalization import MeasuredSource, Normalization, check_usable, fit_to
from cryoplug.core.statistics import scan_pixels
from cryoplug.errors import InputError, StorageError, UsageError
from cryoplug.formats.mrc import MrcHeader
from cryoplug.formats.registry import open_micrograph
from cryoplug.inference.appearance import look
from cryoplug.inference.channel import Channel, Closed
from cryoplug.inference.messages import Begin, DenoiseJob, End, Failed, Message, Rows
from cryoplug.inference.regrid import GridPlan, Regrid

if TYPE_CHECKING:
    from cryoplug.inference.denoiser import Denoiser
    from cryoplug.models.checkpoint import Checkpoint

CLIPPED_WARNING = 0.2
"""Percentile normalization clips 5 % of an ordinary micrograph; beyond this the network sees little of it."""
OTHER_SCALE = 1.5
"""Factor between the pixel sizes of a micrograph and of the training data from which on a warning is given."""


def read_all(
    jobs: Iterable[DenoiseJob],
    denoiser: Denoiser,
    out: Channel[Message],
    should_stop: Callable[[], bool],
    regrid: Regrid,
) -> None:
    """Send all jobs, one after another; one that cannot be read becomes `Failed`."""

    def given_up() -> bool:
        return out.aborted or should_stop()

    try:
        for job in jobs:
            started = time.perf_counter()
            try:
                with open_source(job) as source:
                    _read_one(job, _Guarded(source, given_up), denoiser, out, regrid, started=started)
            except (InputError, StorageError, UsageError) as error:
                out.put(Failed(job, started, error))
    except Closed:
        pass
    finally:
        out.close()


def open_source(job: DenoiseJob) -> MicrographSource:
    """Open the micrograph of a job."""
    return open_micrograph(job.source) if job.section is None else open_micrograph(job.source, section=job.section)


class _Guarded(MicrographSource):
    """A source that ends the reading, statistics included, as soon as nobody wants it any more."""

    def __init__(self, source: MicrographSource, given_up: Callable[[], bool]) -> None:
        self.path, self.shape, self.dtype = source.path, source.shape, source.dtype
        self.pixel_size_angstrom, self.warnings = source.pixel_size_angstrom, source.warnings
        header = getattr(source, "header", None)
        self.header = header if isinstance(header, MrcHeader) else None
        self._source = source
        self._given_up = given_up

    def read_rows(self, start: int, stop: int) -> ImageF32:
        """Read rows, or raise `Closed`."""
        if self._given_up():
            raise Closed
        return self._source.read_rows(start, stop)

    def close(self) -> None:
        """Do nothing: who opened the source closes it."""


def _read_one(
    job: DenoiseJob, source: _Guarded, denoiser: Denoiser, out: Channel[Message], regrid: Regrid, *, started: float
) -> None:
    known = job.pixel_size_angstrom if source.pixel_size_angstrom is None else source.pixel_size_angstrom
    plan = regrid.plan(source.shape, known, path=source.path)
    pixels, raw, measured = _on_the_networks_grid(source, plan)
    bands = denoiser.bands(pixels.shape)
    normalization, statistics = fit_to(MeasuredSource(pixels), denoiser.normalize)
    normalization, unlike_training = look(pixels, normalization, denoiser.checkpoint)
    out.put(
        Begin(
            job,
            started,
            shape=source.shape,
            template=source.header,
            pixel_size_angstrom=known,
            normalization=normalization,
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
    warnings = [*warnings_about(job, source, denoiser, plan, normalization, part), *unlike_training]
    out.put(End("; ".join(warnings), statistics.std if measured is None else measured.value))


def _on_the_networks_grid(
    source: MicrographSource, plan: GridPlan
) -> tuple[MicrographSource, ImageF32 | None, _Deviation | None]:
    """Give what the network sees, the raw pixels if they are needed again, and their deviation if it was measured."""
    if plan.does_nothing:
        return source, None, None
    check_usable(source, scan_pixels(source))
    raw = np.empty(source.shape, np.float32) if plan.regrid.needs_raw else None
    deviation = _Deviation()

    def see(start: int, rows: ImageF32) -> None:
        deviation.add(rows)
        if raw is not None:
            raw[start : start + len(rows)] = rows

    small = resample_source(source, plan.network_shape, see)
    return ArrayMicrograph(small, source.path), raw, deviation


class _Deviation:
    """Standard deviation in one pass; sums of float32 about the first band's mean are exact enough for a journal."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares, self._shift = 0, 0.0, 0.0, 0.0

    def add(self, rows: np.ndarray) -> None:
        if not self._count:
            self._shift = float(rows.mean(dtype=np.float64))
        with np.errstate(over="ignore"):
            moved = (rows - np.float32(self._shift)).ravel()
            self._sum += float(moved.sum(dtype=np.float64))
            self._squares += float(np.dot(moved, moved))
        self._count += moved.size

    @property
    def value(self) -> float:
        mean = self._sum / self._count
        return math.sqrt(max(0.0, self._squares / self._count - mean * mean))


def _count_clipped(rows: np.ndarray, normalization: Normalization) -> int:
    if normalization.kind != "percentile":
        return 0
    low, high = normalization.offset, normalization.offset + normalization.scale
    return int(np.count_nonzero(rows < low)) + int(np.count_nonzero(rows > high))


def remarks_on_scale(denoiser: Denoiser, plan: GridPlan, pixel_size_angstrom: float | None) -> Iterator[str]:
    """Say what the user should know about the pixel size of a micrograph and that of the training data."""
    yield from filter(None, [plan.remark])
    known = None if pixel_size_angstrom is None else plan.regrid.network_angstrom(pixel_size_angstrom)
    known = known or plan.regrid.angpix
    trained = _nearest_trained(denoiser.checkpoint, known)
    if known and trained and max(known / trained, trained / known) > OTHER_SCALE:
        yield (
            f"pixel size {known:g} A, but the checkpoint was trained at {trained:g} A: noise and particles look "
            "different to the network; use one trained near this pixel size"
        )


def _nearest_trained(checkpoint: Checkpoint, known: float | None) -> float | None:
    sizes = checkpoint.angpix_range
    if sizes is None or known is None:
        return checkpoint.pixel_size_angstrom
    return min(max(known, sizes[0]), sizes[1])


def warnings_about(
    job: DenoiseJob,
    source: MicrographSource,
    denoiser: Denoiser,
    plan: GridPlan,
    normalization: Normalization,
    clipped: float,
) -> Iterator[str]:
    """Say what the user should know about a micrograph: its header, its pixel size, what the normalization clips."""
    yield from source.warnings
    header, given = source.pixel_size_angstrom, job.pixel_size_angstrom
    yield from remarks_on_scale(denoiser, plan, header or given)
    if header is not None and given is not None and abs(header - given) > 0.01 * given:
        yield f"the header says {header:g} A/px, the STAR file {given:g}; the header's was kept"
    if normalization.kind == "percentile" and clipped > CLIPPED_WARNING:
        yield (
            f"percentile normalization clips {100 * clipped:.0f} % of the pixels, which are lost; "
            "use --normalize zscore, with a checkpoint trained so"
        )
