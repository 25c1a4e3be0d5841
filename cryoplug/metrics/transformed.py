"""An image whose Fourier transforms are kept, so that all measures of it share them."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from cryoplug.metrics.pixel import Image
from cryoplug.metrics.rings import Spectrum, spectrum, without_mean
from cryoplug.metrics.transforms import forward

MARGIN_PX = 64
"""Pixels by which an image is continued by its mirror image for filters, so that opposite borders do not join."""


class Transformed:
    """An image, with transforms that are computed when they are first asked for.

    Parameters
    ----------
    image
        ``(y, x)``.
    """

    def __init__(self, image: Image) -> None:
        self.image = image
        """The image."""

    @staticmethod
    def of(image: Image | Transformed) -> Transformed:
        """Give what is transformed already as it is."""
        return image if isinstance(image, Transformed) else Transformed(image)

    @property
    def shape(self) -> tuple[int, int]:
        """``(y, x)``."""
        return self.image.shape[0], self.image.shape[1]

    @cached_property
    def tapered(self) -> Spectrum:
        """The spectrum of the image, faded out towards its borders."""
        return spectrum(self.image, taper=True)

    @property
    def mirrored(self) -> Spectrum:
        """The terms of the image with its mirror image around it, without the mean."""
        return self._mirrored[0]

    @property
    def mirrored_mean(self) -> float:
        """The mean of the image with its mirror image around it."""
        return self._mirrored[1]

    @property
    def inside(self) -> tuple[slice, slice]:
        """Where the image lies in the mirrored one."""
        above, left = _margins(self.shape)
        return slice(above, above + self.shape[0]), slice(left, left + self.shape[1])

    @cached_property
    def _mirrored(self) -> tuple[Spectrum, float]:
        above, left = _margins(self.shape)
        pixels, mean = without_mean(np.pad(self.image, ((above, above), (left, left)), mode="symmetric"))
        return forward(pixels), mean


def mirrored_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Give ``(y, x)`` of an image with its mirror image around it."""
    above, left = _margins(shape)
    return shape[0] + 2 * above, shape[1] + 2 * left


def _margins(shape: tuple[int, int]) -> tuple[int, int]:
    return min(MARGIN_PX, shape[0]), min(MARGIN_PX, shape[1])
