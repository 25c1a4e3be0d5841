"""Stacks: their sections are read some at a time, denoised each for itself, and written in order into one stack.

A section comes out as it would alone. What no network can use (NaN, or all pixels equal) stays as it is and is named, so that the
stack has its sections in their places. Small images go through the network many at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryoplug.core.fourier_crop import resample_image
from cryoplug.core.grey_scale import normalization_remark
from cryoplug.core.hot_pixels import grey_limits, repaired_image, sampled_rows
from cryoplug.core.many_images import MeasuredImage, statistics_of
from cryoplug.core.mean_kept import mean_shift
from cryoplug.core.micrograph import ImageF32
from cryoplug.core.normalization import Normalization, check_usable, fit_to
from cryoplug.core.statistics import PixelStatistics
from cryoplug.errors import FormatError, PixelError
from cryoplug.formats.stack_kind import MOVIE_ADVICE, VOLUME_ADVICE, look_at_stack
from cryoplug.inference.in_memory import on_the_networks_grid
from cryoplug.inference.likeness import look_at_many
from cryoplug.inference.messages import Sections
from cryoplug.inference.regrid import GridPlan
from cryoplug.inference.target import to_grey_values

if TYPE_CHECKING:
    from cryoplug.inference.denoiser import Denoiser

_SHOWN = 3


def refuse_movies_and_volumes(path: Path) -> None:
    """Raise `FormatError` unless a file of several images is a stack or a tilt series."""
    found = look_at_stack(path)
    if found.kind == "volume":
        raise FormatError(f"{path}: {found.sections} sections: this is a volume, for {found.why}; {VOLUME_ADVICE}")
    if found.kind == "movie":
        raise FormatError(f"{path}: {found.sections} sections: this is a movie, for {found.why}; {MOVIE_ADVICE}")


@dataclass(frozen=True)
class _Fitted:
    """One section, ready for the network."""

    place: int
    """Where it is among the sections of its message, from 0."""
    image: ImageF32
    """Its pixels, hot ones repaired."""
    small: ImageF32
    """The same on the network's grid."""
    normalization: Normalization
    """What is done to `small`."""
    statistics: PixelStatistics
    """Of `small`."""


def denoised_sections(message: Sections, denoiser: Denoiser, should_stop: Callable[[], bool]) -> Sections:
    """Denoise some sections of a stack, each as if it were a file of its own.

    Small images are too small to tell how noisy each is: there the noise of all sections of the message counts.
    """
    plan, path = message.grid, message.job.source
    assert plan is not None
    kept: list[tuple[int, str]] = []
    fitted: list[_Fitted] = []
    hot_pixels = 0
    for place, image in enumerate(message.pixels):
        try:
            found, hot = _fit(place, image, plan, denoiser, path)
        except PixelError as error:
            kept.append((message.first + place, str(error).removeprefix(f"{path}: ").split(";")[0]))
        else:
            fitted.append(found)
            hot_pixels += hot
    result = np.empty((len(message.pixels), *plan.written_shape), np.float32)
    for section, _ in kept:
        result[section - message.first] = plan.as_it_is(message.pixels[section - message.first])
    remarks: list[str] = []
    if fitted and denoiser.is_one_tile(plan.network_shape):
        made, remarks = _at_once(fitted, denoiser, should_stop)
    elif fitted:
        alone = [
            on_the_networks_grid(denoiser, item.image, plan, path=path, should_stop=should_stop) for item in fitted
        ]
        made = [one.pixels for one in alone]
        remarks = ["; ".join(one.remarks) for one in alone]
    for item, denoised in zip(fitted, made if fitted else (), strict=True):
        rows = [denoised] if plan.does_nothing else plan.finish(denoised, item.image)
        result[item.place] = np.concatenate(list(rows))
    return dataclasses.replace(
        message, pixels=result, kept=tuple(kept), remarks=tuple(filter(None, remarks)), hot_pixels=hot_pixels
    )


def _at_once(
    fitted: Sequence[_Fitted], denoiser: Denoiser, should_stop: Callable[[], bool]
) -> tuple[Sequence[ImageF32], list[str]]:
    """Send small images through the network many at a time; give what it made, in grey values, and a remark for each."""
    greys = [
        normalization_remark(
            item.normalization, clipped=_clipped_part(item.small, item.normalization), sigma=item.statistics.std
        )
        for item in fitted
    ]
    seen = [(item.small, item.normalization) for item in fitted]
    normalizations, unlike = look_at_many(seen, denoiser.checkpoint)
    inputs = np.stack([one.apply(item.small) for one, item in zip(normalizations, fitted, strict=True)])
    made = []
    for normalization, item, output in zip(normalizations, fitted, denoiser.many(inputs, should_stop), strict=True):
        denoised = to_grey_values(normalization, item.statistics.mean, denoiser.target).invert(output)
        if not denoiser.bare:
            denoised += np.float32(mean_shift(item.statistics, statistics_of(denoised)))
        made.append(denoised)
    return made, ["; ".join(filter(None, [grey, *unlike])) for grey in greys]


def _fit(place: int, image: ImageF32, plan: GridPlan, denoiser: Denoiser, path: Path) -> tuple[_Fitted, int]:
    measured = MeasuredImage(image, path)
    statistics, hot_pixels = measured.statistics(), 0
    check_usable(measured, statistics)
    if not denoiser.bare:
        limits = grey_limits(image[sampled_rows(len(image))])
        if limits is not None and (statistics.minimum < limits.low or statistics.maximum > limits.high):
            image, hot = repaired_image(image)
            measured, hot_pixels = MeasuredImage(image, path), len(hot)
    small = image
    if plan.network_shape != plan.shape:
        small = resample_image(image, plan.network_shape)
        measured = MeasuredImage(small, path)
    normalization, statistics = fit_to(measured, denoiser.normalize)
    return _Fitted(place, image, small, normalization, statistics), hot_pixels


def _clipped_part(pixels: np.ndarray, normalization: Normalization) -> float:
    if normalization.kind != "percentile":
        return 0.0
    outside = np.count_nonzero(pixels < 0) + np.count_nonzero(pixels > normalization.scale)
    return int(outside) / pixels.size


def remarks_on_sections(parts: Sequence[Sections], sections: int) -> Iterator[str]:
    """Say what the user should know about the sections of a stack."""
    yield f"{sections} sections"
    remarks = [text for part in parts for text in part.remarks]
    if len(remarks) > sections / 2:
        yield f"{remarks[0]} (so or alike in {len(remarks)} of {sections} sections)"
    hot = sum(part.hot_pixels for part in parts)
    yield f"{hot} hot pixels were replaced by the median of the neighbours before denoising" if hot else ""
    yield kept_remark([item for part in parts for item in part.kept], sections)


def kept_remark(kept: Sequence[tuple[int, str]], sections: int) -> str:
    """Say which sections were not denoised, and why; empty when all were."""
    if not kept:
        return ""
    shown = ", ".join(f"{number} ({why})" for number, why in kept[:_SHOWN])
    more = f" and {len(kept) - _SHOWN} more" if len(kept) > _SHOWN else ""
    return f"{len(kept)} of {sections} sections cannot be denoised and stay as they are: {shown}{more}"
