"""Images side by side on one grey scale, for the panels of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cryoplug.core.micrograph import ImageF32
from cryoplug.core.thumbnail import Thumbnail, thumbnail_step
from cryoplug.outputs.pictures import grey_bytes, jpeg
from cryoplug.outputs.previews import draw_bar
from cryoplug.reports.sections import Panels

_SIGMAS = 3.0
_NOISY_SHARE = 0.6
DETAIL_PX = 320
"""Side in pixels of a detail that is shown pixel by pixel."""


def small(image: ImageF32, longest_px: int) -> ImageF32:
    """Shrink an image by averaging."""
    shape = image.shape[0], image.shape[1]
    thumbnail = Thumbnail(shape, thumbnail_step(shape, longest_px))
    thumbnail.add(0, image)
    return thumbnail.image()


def detail(image: ImageF32) -> ImageF32:
    """Give the middle of an image."""
    y, x = (max(0, (side - DETAIL_PX) // 2) for side in image.shape)
    return image[y : y + DETAIL_PX, x : x + DETAIL_PX]


def panels(
    images: Mapping[str, ImageF32],
    *,
    clean: Sequence[str],
    noisy: Sequence[str],
    caption: str = "",
    pixel_size_angstrom: float | None = None,
) -> Panels:
    """Draw images with one span of grey values, around the median of each, so that a step of grey means the same in all.

    Parameters
    ----------
    images
        Images ``(y, x)`` by caption.
    clean
        Captions of the images whose contrast decides the span.
    noisy
        Captions of noisy images, which widen the span if they would be only black and white.
    caption
        Text below all panels.
    pixel_size_angstrom
        Pixel size of the images, for a scale bar in the first one; None if unknown.
    """
    sigmas = {name: _middle_and_sigma(image) for name, image in images.items()}
    half = _SIGMAS * max(
        [sigmas[name][1] for name in clean] + [_NOISY_SHARE * sigmas[name][1] for name in noisy], default=1.0
    )
    half = half or 0.5
    pictures = []
    for place, (name, image) in enumerate(images.items()):
        grey = grey_bytes(image, sigmas[name][0] - half, sigmas[name][0] + half)
        if place == 0 and pixel_size_angstrom is not None:
            draw_bar(grey, pixel_size_angstrom)
        pictures.append((jpeg(grey), name))
    return Panels(pictures, caption)


def _middle_and_sigma(image: ImageF32) -> tuple[float, float]:
    finite = image[np.isfinite(image)]
    if not finite.size:
        return 0.0, 0.0
    low, middle, high = (float(value) for value in np.percentile(finite, (25, 50, 75)))
    return middle, (high - low) / 1.349
