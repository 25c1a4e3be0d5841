"""Stacks: read some sections at a time, denoise each by itself, and write them in order into one stack.

A section comes out as it would alone. Sections that no network can use (NaN, or all pixels equal) stay unchanged and are named,
so that all sections keep their places. Small images go through the network many at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryoplug.core.bad_border import Lines, may_have_bad_border
from cryoplug.core.fourier_crop import resample_image
from cryoplug.core.grey_scale import normalization_remark
from cryoplug.core.hot_pixels import hot_pixel_remark
from cryoplug.core.many_images import MeasuredImage, apply_many, invert_many, measure_many
from cryoplug.core.mean_kept import mean_shift
from cryoplug.core.micrograph import ImageF32
from cryoplug.core.normalization import Normalization, check_usable, fit_to
from cryoplug.core.repairs import Repairs, repaired_image
from cryoplug.errors import FormatError, PixelError
from cryoplug.formats.stack_kind import MOVIE_ADVICE, VOLUME_ADVICE, look_at_stack
from cryoplug.inference.in_memory import on_the_networks_grid
from cryoplug.inference.likeness import look_at_many
from cryoplug.inference.messages import Sections
from cryoplug.inference.regrid import GridPlan
from cryoplug.inference.resampling import resample_on_host
from cryoplug.inference.target import to_grey_values

if TYPE_CHECKING:
    from cryoplug.inference.denoiser import Denoiser

_SHOWN = 3


def refuse_movies_and_volumes(path: Path) -> None:
    """Raise `FormatError` unless a file of several images is a stack or a tilt series."""
    found = look_at_stack(path)
    if found.kind == "volume":
        raise FormatError(f"{path}: {found.sections} sections: this is a volume because {found.why}; {VOLUME_ADVICE}")
    if found.kind == "movie":
        raise FormatError(f"{path}: {found.sections} sections: this is a movie because {found.why}; {MOVIE_ADVICE}")


@dataclass(frozen=True)
class _Fitted:
    """Sections that the network can use, prepared for it."""

    places: list[int]
    """Number of each among the sections of its message, from 0."""
    images: ImageF32
    """Their pixels ``(n, y, x)``, repaired."""
    small: ImageF32
    """The same on the network's grid."""
    measured: list[MeasuredImage]
    """Measurements of `small`."""
    normalizations: list[Normalization]
    """Normalization of each image of `small`."""
    hot_pixels: int
    """Number of repaired hot pixels."""
    bad_borders: tuple[Lines, ...]
    """Replaced rows and columns of each image with a bad border."""


def denoised_sections(message: Sections, denoiser: Denoiser, should_stop: Callable[[], bool]) -> Sections:
    """Denoise some sections of a stack, each as if it were a separate file.

    One small image is too small to measure its noise, so the noise of all sections of the message counts.
    """
    plan, path = message.grid, message.job.source
    assert plan is not None
    kept: list[tuple[int, str]] = []
    result = np.empty((len(message.pixels), *plan.written_shape), np.float32)

    def keep(place: int, error: PixelError) -> None:
        kept.append((message.first + place, str(error).removeprefix(f"{path}: ").split(";")[0]))
        result[place] = plan.as_it_is(message.pixels[place])

    fitted = _fit(message.pixels, plan, denoiser, path, keep)
    remarks: list[str] = []
    if not fitted.places:
        made: Sequence[ImageF32] | ImageF32 = ()
    elif denoiser.is_one_tile(plan.network_shape):
        made, remarks = _at_once(fitted, denoiser, should_stop)
    else:
        alone = [
            on_the_networks_grid(denoiser, image, plan, path=path, should_stop=should_stop) for image in fitted.images
        ]
        made = [one.pixels for one in alone]
        remarks = ["; ".join(one.remarks) for one in alone]
    for place, image, denoised in zip(fitted.places, fitted.images, made, strict=True):
        rows = [denoised] if plan.does_nothing else plan.finish(denoised, image)
        result[place] = np.concatenate(list(rows))
    return dataclasses.replace(
        message,
        pixels=result,
        kept=tuple(sorted(kept)),
        remarks=tuple(filter(None, remarks)),
        hot_pixels=fitted.hot_pixels,
        bad_borders=fitted.bad_borders,
    )


def _at_once(fitted: _Fitted, denoiser: Denoiser, should_stop: Callable[[], bool]) -> tuple[ImageF32, list[str]]:
    """Apply the network to many small images at a time; give the results in grey values, and a remark for each."""
    greys = [
        normalization_remark(one, clipped=_clipped_part(item, one), sigma=item.moments.std)
        for item, one in zip(fitted.measured, fitted.normalizations, strict=True)
    ]
    seen = list(zip(fitted.small, fitted.normalizations, strict=True))
    normalizations, unlike = look_at_many(seen, denoiser.checkpoint)
    output = denoiser.many(apply_many(normalizations, fitted.small), should_stop)
    back = [
        to_grey_values(one, item.moments.mean, denoiser.target)
        for item, one in zip(fitted.measured, normalizations, strict=True)
    ]
    made = invert_many(back, output)
    if not denoiser.bare:
        means = made.mean(axis=(1, 2), dtype=np.float64)
        for image, item, mean in zip(made, fitted.measured, means, strict=True):
            image += np.float32(mean_shift(item.moments, float(mean)))
    return made, ["; ".join(filter(None, [grey, *unlike])) for grey in greys]


def _fit(
    pixels: ImageF32, plan: GridPlan, denoiser: Denoiser, path: Path, keep: Callable[[int, PixelError], None]
) -> _Fitted:
    """Measure and repair sections; `keep` is called with those that cannot be used, and the reason."""
    measured = measure_many(pixels, path)
    usable: list[int] = []
    repairs: dict[int, Repairs] = {}
    may_be_bad = may_have_bad_border(plan.shape)
    for place, item in enumerate(measured):
        try:
            check_usable(item, item.moments)
        except PixelError as error:
            keep(place, error)
            continue
        usable.append(place)
        if (item.has_pixels_beyond or may_be_bad) and not denoiser.bare:
            repaired, found = repaired_image(pixels[place])
            if found:
                pixels = pixels if repairs else pixels.copy()
                pixels[place] = repaired
                repairs[place] = found
                measured[place] = measure_many(repaired[None], path)[0]
    images, measured = _chosen(pixels, usable), [measured[place] for place in usable]
    small = images
    if usable and plan.network_shape != plan.shape:
        small = np.stack([resample_image(image, plan.network_shape, resample=resample_on_host) for image in images])
        measured = measure_many(small, path)
    normalizations: dict[int, Normalization] = {}
    for index, item in enumerate(measured):
        try:
            normalizations[index] = fit_to(item, denoiser.normalize)
        except PixelError as error:
            keep(usable[index], error)
    chosen = list(normalizations)
    places = [usable[index] for index in chosen]
    return _Fitted(
        places,
        _chosen(images, chosen),
        _chosen(small, chosen),
        [measured[index] for index in chosen],
        list(normalizations.values()),
        sum(len(repairs[place].hot) for place in places if place in repairs),
        tuple(repairs[place].border.lines for place in places if place in repairs and repairs[place].border),
    )


def _chosen(images: ImageF32, places: Sequence[int]) -> ImageF32:
    return images if len(places) == len(images) else images[list(places)]


def _clipped_part(item: MeasuredImage, normalization: Normalization) -> float:
    return item.part_outside(0.0, normalization.scale) if normalization.kind == "percentile" else 0.0


class StackRemarks:
    """Collects remarks on the sections of one stack while they pass; their pixels are not kept.

    Parameters
    ----------
    sections
        Number of sections in the stack.
    """

    def __init__(self, sections: int) -> None:
        self._sections = sections
        self._remark, self._remarked = "", 0
        self._kept: list[tuple[int, str]] = []
        self.hot_pixels = 0
        """Number of hot pixels repaired so far."""
        self._bad_borders: list[Lines] = []

    def add(self, part: Sections) -> None:
        """Add the remarks on some denoised sections."""
        self._remark = self._remark or next(iter(part.remarks), "")
        self._remarked += len(part.remarks)
        self._kept += part.kept
        self.hot_pixels += part.hot_pixels
        self._bad_borders += part.bad_borders

    @property
    def bad_border(self) -> Lines:
        """Rows and columns that were replaced so far, the most at each side."""
        top, bottom, left, right = (max(side) for side in zip((0, 0, 0, 0), *self._bad_borders, strict=True))
        return top, bottom, left, right

    def check_any(self, path: Path) -> None:
        """Raise `PixelError` if no section could be denoised: a copy of the stack is no result."""
        if len(self._kept) == self._sections:
            number, why = self._kept[0]
            raise PixelError(
                f"{path}: none of its {self._sections} sections can be denoised, such as {number} ({why}); repair or leave it out"
            )

    def sentences(self) -> Iterator[str]:
        """Give all remarks; some may be empty."""
        yield f"{self._sections} sections"
        if self._remarked > self._sections / 2:
            yield f"{self._remark} (so or alike in {self._remarked} of {self._sections} sections)"
        yield hot_pixel_remark(self.hot_pixels)
        if self._bad_borders:
            yield f"{len(self._bad_borders)} of {self._sections} sections had a bad border: pixels from beside replaced it"
        yield kept_remark(self._kept, self._sections)


def kept_remark(kept: Sequence[tuple[int, str]], sections: int) -> str:
    """Say which sections were not denoised, and why; empty if all were."""
    if not kept:
        return ""
    shown = ", ".join(f"{number} ({why})" for number, why in kept[:_SHOWN])
    more = f" and {len(kept) - _SHOWN} more" if len(kept) > _SHOWN else ""
    return f"{len(kept)} of {sections} sections cannot be denoised and stay as they are: {shown}{more}"
