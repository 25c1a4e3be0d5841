"""Structural similarity: whether two images show the same local contrast."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from cryoplug.errors import PixelError, ShapeError
from cryoplug.metrics.pixel import Image

Plane = npt.NDArray[np.float64]

_TILE_PX = 54
"""Side of a tile; with the pixels around it 64, so that it stays in the cache, and the blur is a small product of matrices."""
_RADIUS = 5
_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03


def ssim(image: Image, truth: Image, *, data_range: float) -> float:
    """Return the mean structural similarity (Wang et al. 2004, IEEE Trans. Image Process. 13, 600).

    Windows are Gaussian, 11 x 11 pixels, of standard deviation 1.5; K1 = 0.01, K2 = 0.03; only windows that lie inside
    the image count.

    Parameters
    ----------
    image, truth
        ``(y, x)``, equal shape, at least 11 pixels a side.
    data_range
        Largest difference that counts as signal, above 0.

    Returns
    -------
    float
        At most 1; equal images have 1.
    """
    if image.shape != truth.shape or image.ndim != 2 or min(image.shape) < 2 * _RADIUS + 1:
        raise ShapeError(f"images of shape {image.shape} and {truth.shape}; needed: equal, (y, x), 11 or more a side")
    if not data_range > 0:
        raise PixelError(f"data_range: {data_range}; must be above 0, so a constant truth has no SSIM")
    # The formula's differences of squares lose digits on a large offset, so the scale begins at the truth's mean; the
    # means in it are meant as grey values, though, and so they get it back.
    offset = float(np.mean(truth, dtype=np.float64))
    total = 0.0
    inner = [side - 2 * _RADIUS for side in image.shape]
    for y in range(0, inner[0], _TILE_PX):
        for x in range(0, inner[1], _TILE_PX):
            tile = (
                slice(y, min(y + _TILE_PX, inner[0]) + 2 * _RADIUS),
                slice(x, min(x + _TILE_PX, inner[1]) + 2 * _RADIUS),
            )
            one, two = (np.subtract(each[tile], offset, dtype=np.float64) for each in (image, truth))
            total += float(_similarity(one, two, offset, data_range).sum())
    return total / (inner[0] * inner[1])


def _similarity(x: Plane, y: Plane, offset: float, data_range: float) -> Plane:
    """Give the similarity at each window of a tile, whose grey values begin at an offset."""
    down, across = map(_windows, x.shape)
    mean_x, mean_y, square_x, square_y, product = (down @ each @ across.T for each in (x, y, x * x, y * y, x * y))
    variance_x, variance_y, covariance = square_x - mean_x**2, square_y - mean_y**2, product - mean_x * mean_y
    mean_x, mean_y = mean_x + offset, mean_y + offset
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    light = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return light * (2 * covariance + c2) / (variance_x + variance_y + c2)


@functools.cache
def _windows(side: int) -> Plane:
    """Give a matrix that blurs a line of so many pixels, wherever the whole kernel lies on it; one row a window."""
    kernel = np.exp(-(np.arange(-_RADIUS, _RADIUS + 1) ** 2) / (2 * _SIGMA**2))
    windows = np.zeros((side - 2 * _RADIUS, side))
    for number, row in enumerate(windows):
        row[number : number + len(kernel)] = kernel / kernel.sum()
    return windows
