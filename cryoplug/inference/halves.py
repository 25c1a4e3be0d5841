"""Denoise exposures from their two halves: the network denoises each half and their sum.

::

    reader thread                       calling thread                writer thread
    even, odd, sum; are they a pair? -> f(even) + f(odd), f(sum) -> their mean in MRC rows, rename

Whole images are in memory, about seven of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryoplug.core.micrograph import ImageF32, MicrographSource
from cryoplug.core.normalization import Normalization, check_usable
from cryoplug.core.pixel_size import PixelSize, pixel_size_of_exposure
from cryoplug.core.repairs import Repairs, repaired_image
from cryoplug.core.statistics import scan_pixels
from cryoplug.core.tiling import plan_tiles
from cryoplug.errors import InputError, PairingError, PixelError, SeveralImagesError, StorageError, UsageError
from cryoplug.formats.mrc import MrcHeader
from cryoplug.formats.registry import open_micrograph, open_movie
from cryoplug.inference.bands.reading import begin_stack, open_source
from cryoplug.inference.bands.sections import refuse_movies_and_volumes
from cryoplug.inference.bands.writing import write_all
from cryoplug.inference.delivery import Delivery
from cryoplug.inference.in_memory import InMemory, on_the_networks_grid
from cryoplug.inference.messages import Begin, DenoiseJob, End, Failed, Message, Rows, Sections
from cryoplug.inference.regrid import GridPlan, Regrid
from cryoplug.inference.remarks import remarks_on_reading
from cryoplug.inference.stages import run_stages
from cryoplug.machine.channel import Channel, Closed
from cryoplug.metrics.evaluation import EQUALLY_NOISY, equally_noisy, noise_ratio

if TYPE_CHECKING:
    from cryoplug.inference.denoiser import Denoiser

Prove = Callable[[MicrographSource, MicrographSource, tuple[float | None, ...]], list[str]]
"""Compares two opened halves and their pixel sizes; gives remarks, or raises `InputError` when they are not a pair."""
BLOCK_PX = 8
"""Side in pixels of the blocks in which a micrograph is compared with the sum of its halves; at this scale dose weighting
changes little."""
LEAST_CORRELATION = 0.5
"""Least correlation of those blocks; the sum of the same frames reaches nearly 1."""


@dataclass(frozen=True)
class _Exposure:
    """The images and facts that were read of one exposure; all images ``(y, x)`` of one shape."""

    job: DenoiseJob
    """The job."""
    started: float
    """Time of the start, by `time.perf_counter`."""
    plan: GridPlan
    """The grids of the images and of the network."""
    template: MrcHeader | None
    """Header to carry over; None when no source is MRC."""
    pixel_size: PixelSize
    """Pixel size to write, and its source."""
    even: ImageF32
    """The even half, in its own grey values."""
    odd: ImageF32
    """The odd half, in its own grey values."""
    whole: ImageF32
    """The micrograph, or the sum of the halves if there is no micrograph."""
    scale: float
    """Factor: ``scale * (even + odd) + offset`` has the units of `whole`."""
    offset: float
    """Offset in grey values of `whole`; see `scale`."""
    warnings: tuple[str, ...]
    """Warnings about the files and their comparison."""
    repairs: Repairs
    """What was repaired in `whole`."""
    section: int | None = None
    """Number of the section in a stack, from 1; None: not a stack."""


@dataclass(frozen=True)
class _KeptSection:
    """A section of a stack that cannot be denoised by halves, and stays as it is."""

    job: DenoiseJob
    """The job."""
    started: float
    """Time of the start, by `time.perf_counter`."""
    section: int
    """Number of the section, from 1."""
    pixels: ImageF32
    """Pixels as in the file, or the sum of the halves."""
    why: str
    """Reason why it cannot be denoised."""


_Item = _Exposure | _KeptSection | Begin | End | Failed
"""Messages of the reader: exposures and failures; for a stack its begin, sections and end."""


def run_halves(
    jobs: Iterable[DenoiseJob],
    denoiser: Denoiser,
    delivery: Delivery,
    *,
    prove: Prove,
) -> bool:
    """Denoise exposures one after another; see `cryoplug.inference.pipeline.run_pipeline` for what both have in common.

    Parameters
    ----------
    jobs
        Jobs with ``halves``. If ``source`` is one of the halves, there is no micrograph of the whole exposure, and the
        result has the units of their sum.
    prove
        Called in the reader thread with the two opened halves and the pixel size of each.

    Returns
    -------
    bool
        Whether all jobs were done; False when ``delivery.should_stop`` ended the run.
    """
    should_stop = delivery.should_stop

    def read(out: Channel[_Item]) -> None:
        _read_all(jobs, out, should_stop, denoiser.regrid, prove, repair=not denoiser.bare)

    return run_stages(
        read,
        lambda items: _computed(items, denoiser, should_stop),
        lambda results: write_all(results, delivery),
        capacity=(1, 2),
        should_stop=should_stop,
        gave_up=delivery.gave_up,
    )


def _computed(items: Iterable[_Item], denoiser: Denoiser, should_stop: Callable[[], bool]) -> Iterator[Message]:
    for item in items:
        if isinstance(item, (Failed, Begin, End)):
            yield item
            continue
        try:
            if isinstance(item, _KeptSection) or item.section is not None:
                yield _denoised_section(item, denoiser, should_stop)
                continue
            yield from _denoised(item, denoiser, should_stop)
        except (InputError, UsageError) as error:
            yield Failed(item.job, item.started, error)


def _read_all(
    jobs: Iterable[DenoiseJob],
    out: Channel[_Item],
    should_stop: Callable[[], bool],
    regrid: Regrid,
    prove: Prove,
    *,
    repair: bool,
) -> None:
    try:
        for job in jobs:
            if out.aborted or should_stop():
                break
            started = time.perf_counter()
            try:
                try:
                    exposure = _read_one(job, regrid, prove, started, repair=repair)
                except SeveralImagesError:
                    for item in _read_stack(job, regrid, prove, started, repair=repair):
                        if out.aborted or should_stop():
                            raise Closed from None
                        out.put(item)
                else:
                    out.put(exposure)
            except (InputError, StorageError, UsageError) as error:
                out.put(Failed(job, started, error))
    except Closed:
        pass
    finally:
        out.close()


def _read_stack(job: DenoiseJob, regrid: Regrid, prove: Prove, started: float, *, repair: bool) -> Iterator[_Item]:
    """Read a stack section by section; a section that is not a pair or cannot be used stays as it is."""
    assert job.halves is not None
    paths = list(dict.fromkeys([job.source, *job.halves]))
    with contextlib.ExitStack() as opened:
        stacks = [opened.enter_context(open_movie(path)) for path in paths]
        for other in stacks[1:]:
            if (other.frame_count, other.frame_shape) != (stacks[0].frame_count, stacks[0].frame_shape):
                raise PairingError(
                    f"{stacks[0].path}: {stacks[0].frame_count} sections of {stacks[0].frame_shape} (y, x), but {other.path} has "
                    f"{other.frame_count} of {other.frame_shape}; halves must be of the same exposures"
                )
        job.check_sections(stacks[0].frame_count)
        if not job.is_stack:
            refuse_movies_and_volumes(job.source)
        known = job.known_pixel_size(*(stack.pixel_size_angstrom for stack in stacks))
        plan = regrid.plan(stacks[0].frame_shape, known.angstrom, path=job.source)
        yield begin_stack(job, stacks[0], plan, known, started=started)
        for section in range(1, stacks[0].frame_count + 1):
            try:
                yield _read_one(job, regrid, prove, started, repair=repair, section=section)
            except (PairingError, PixelError) as error:
                summed = job.source in job.halves
                raw = sum(stack.read_frame(section - 1) for stack in (stacks if summed else stacks[:1]))
                kept = plan.as_it_is(np.asarray(raw, np.float32))
                yield _KeptSection(job, started, section, kept, str(error).split(";")[0])
        yield End("by halves", math.nan)


def _read_one(
    job: DenoiseJob, regrid: Regrid, prove: Prove, started: float, *, repair: bool, section: int | None = None
) -> _Exposure:
    assert job.halves is not None
    with (
        open_micrograph(job.halves[0], section=section) as even,
        open_micrograph(job.halves[1], section=section) as odd,
    ):
        for half in (even, odd):
            check_usable(half, scan_pixels(half))
        headers = even.pixel_size_angstrom, odd.pixel_size_angstrom
        known, sizes = pixel_size_of_exposure(job.stated_angstrom, (job.pixel_size_angstrom,), headers)
        warnings = [*even.warnings, *odd.warnings, *prove(even, odd, sizes)]
        (left, _), (right, repairs) = (_pixels(half, repair=repair) for half in (even, odd))
        sides = left, right
        _refuse_unlike(sides, job)
        template = _header(even)
    whole, scale, offset = sides[0] + sides[1], 1.0, 0.0
    if job.source not in job.halves:
        with open_source(job) if section is None else open_micrograph(job.source, section=section) as source:
            check_usable(source, scan_pixels(source))
            if source.shape != whole.shape:
                raise PairingError(
                    f"{source.path}: shape {source.shape}, but its half {job.halves[0]} has {whole.shape}; "
                    "halves must be of the same frames"
                )
            warnings += source.warnings
            pixels, repairs = _pixels(source, repair=repair)
            known = job.known_pixel_size(source.pixel_size_angstrom, *headers)
            template = _header(source) or template
        scale, offset = _fit(pixels, whole, job)
        whole = pixels
    plan = regrid.plan((whole.shape[0], whole.shape[1]), known.angstrom, path=job.source)
    return _Exposure(
        job,
        started,
        plan,
        template,
        known,
        sides[0],
        sides[1],
        whole,
        scale,
        offset,
        tuple(dict.fromkeys(filter(None, warnings))),
        repairs,
        section=section,
    )


def _pixels(source: MicrographSource, *, repair: bool) -> tuple[ImageF32, Repairs]:
    pixels = source.read_rows(0, source.shape[0])
    return repaired_image(pixels) if repair else (pixels, Repairs())


def _refuse_unlike(sides: tuple[ImageF32, ImageF32], job: DenoiseJob) -> None:
    ratio = noise_ratio(*sides)
    if not equally_noisy(ratio):
        raise PairingError(
            f"{job.source}: the noise of its even half has {ratio:.3g} times the variance of the odd one's (allowed: 1 / "
            f"{EQUALLY_NOISY:g} to {EQUALLY_NOISY:g}), so their mean is worse than the better half; denoise without --halves"
        )


def _header(source: MicrographSource) -> MrcHeader | None:
    header = getattr(source, "header", None)
    return header if isinstance(header, MrcHeader) else None


def _fit(pixels: ImageF32, both: ImageF32, job: DenoiseJob) -> tuple[float, float]:
    """Fit scale and offset from the sum of the halves to the micrograph, and check that they are the same exposure."""
    ours, theirs = (_blocks(image).astype(np.float64) for image in (pixels, both))
    moved = theirs - theirs.mean()
    covariance, variance = float((ours * moved).mean()), float((moved**2).mean())
    correlation = covariance / np.sqrt(variance * float(ours.var())) if variance > 0 and ours.var() > 0 else 0.0
    if correlation < LEAST_CORRELATION:
        raise PairingError(
            f"{job.source}: correlates by {correlation:.2f} with the sum of its halves (blocks of {BLOCK_PX} px; at least "
            f"{LEAST_CORRELATION:g} is needed): they are of another exposure; correct the names or the STAR file"
        )
    scale = covariance / variance
    return scale, float(ours.mean() - scale * theirs.mean())


def _blocks(image: ImageF32) -> np.ndarray:
    height, width = (max(1, side // BLOCK_PX) for side in image.shape)
    side = min(BLOCK_PX, *image.shape)
    return image[: height * side, : width * side].reshape(height, side, width, side).mean(axis=(1, 3))


def _denoised_section(item: _Exposure | _KeptSection, denoiser: Denoiser, should_stop: Callable[[], bool]) -> Sections:
    """Compute one section of a stack, in grey values."""
    if isinstance(item, _KeptSection):
        return Sections(item.job, item.section, item.pixels[None], kept=((item.section, item.why),))
    assert item.section is not None
    result = _by_halves(item, denoiser, should_stop).pixels
    if not item.plan.does_nothing:
        result = np.concatenate(list(item.plan.finish(result, item.whole)))
    repairs = item.repairs
    bad_borders = (repairs.border.lines,) if repairs.border else ()
    return Sections(item.job, item.section, result[None], hot_pixels=len(repairs.hot), bad_borders=bad_borders)


def _denoised(exposure: _Exposure, denoiser: Denoiser, should_stop: Callable[[], bool]) -> list[Message]:
    """Compute one exposure, and give the messages that write it."""
    plan = exposure.plan
    result = _by_halves(exposure, denoiser, should_stop)
    message = remarks_on_reading(
        warnings=exposure.warnings,
        plan=plan,
        checkpoint=denoiser.checkpoint,
        grey_values=result.remarks,
        repairs=exposure.repairs,
    )
    (everything,) = plan_tiles(plan.network_shape, tile=plan.network_shape, overlap=0)
    return [
        Begin(
            exposure.job,
            exposure.started,
            shape=plan.written_shape,
            template=exposure.template,
            pixel_size_angstrom=plan.written_angstrom,
            pixel_size=exposure.pixel_size,
            to_grey_values=Normalization("none"),
            grid=None if plan.does_nothing else plan,
            raw=exposure.whole if plan.regrid.needs_raw else None,
        ),
        Rows(everything, result.pixels),
        End(
            message,
            float(exposure.whole.std(dtype=np.float64)),
            hot_pixels=len(exposure.repairs.hot),
            bad_border=exposure.repairs.border.lines,
            mean_shift=result.mean_shift,
            sigma=result.sigma_seen,
        ),
    ]


def _by_halves(exposure: _Exposure, denoiser: Denoiser, should_stop: Callable[[], bool]) -> InMemory:
    """Denoise the halves and the sum; give their mean on the network's grid, with the remarks on the sum."""
    even, odd, whole = (
        on_the_networks_grid(denoiser, image, exposure.plan, path=exposure.job.source, should_stop=should_stop)
        for image in (exposure.even, exposure.odd, exposure.whole)
    )
    by_halves = np.float32(exposure.scale) * (even.pixels + odd.pixels) + np.float32(exposure.offset)
    shift = 0.5 * (exposure.scale * (even.mean_shift + odd.mean_shift) + whole.mean_shift)
    return dataclasses.replace(whole, pixels=np.float32(0.5) * (by_halves + whole.pixels), mean_shift=shift)
