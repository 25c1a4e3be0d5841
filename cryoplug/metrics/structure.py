"""Structural similarity: whether two images show the same local contrast."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cryoplug.errors import PixelError, ShapeError
from cryoplug.metrics.pixel import Image

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
    x, y = np.asarray(image, np.float64) - offset, np.asarray(truth, np.float64) - offset
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x = _blurred(x * x) - mean_x**2
    variance_y = _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + offset, mean_y + offset
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    light = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float((light * (2 * covariance + c2) / (variance_x + variance_y + c2)).mean())


def _blurred(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    kernel = np.exp(-(np.arange(-_RADIUS, _RADIUS + 1) ** 2) / (2 * _SIGMA**2))
    kernel /= kernel.sum()
    height, width = (side - 2 * _RADIUS for side in image.shape)
    rows = sum(weight * image[i : i + height] for i, weight in enumerate(kernel))
    return np.asarray(sum(weight * rows[:, i : i + width] for i, weight in enumerate(kernel)))
