"""Pixel by pixel: how far an image is from its truth.

A denoiser may return any grey scale, so an image is usually compared after the best ``a*x + b`` (`best_affine`).
All sums are in float64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cryoplug.errors import PixelError, ShapeError
from cryoplug.metrics.sums import mean_square_difference, means_and_covariances

Image = npt.NDArray[np.floating]


def mse(image: Image, truth: Image) -> float:
    """Return the mean squared error, in the square of the images' unit.

    Raises
    ------
    ShapeError
        Shapes differ; the message shows both.
    """
    return mean_square_difference(*_checked(image, truth))


def psnr(image: Image, truth: Image, *, data_range: float) -> float:
    """Return the peak signal-to-noise ratio, ``10 log10(data_range^2 / mse)``.

    Parameters
    ----------
    image, truth
        Equal shape.
    data_range
        Largest difference that counts as signal, above 0: 1 for images in [0, 1]; often the truth's maximum minus its
        minimum. There is no default, because the result means nothing without it.

    Returns
    -------
    float
        Decibel; infinite for equal images.

    Raises
    ------
    PixelError
        `data_range` is not above 0; most likely the truth is constant.
    """
    if not data_range > 0:
        raise PixelError(f"data_range: {data_range}; must be above 0, so a constant truth has no PSNR")
    error = mse(image, truth)
    return float(10 * np.log10(data_range**2 / error)) if error > 0 else float("inf")


def correlation(image: Image, truth: Image) -> float:
    """Return Pearson's correlation coefficient, in [-1, 1].

    Raises
    ------
    PixelError
        One of the two is constant.
    """
    _, covariance = means_and_covariances(*_checked(image, truth))
    norm = float(np.sqrt(covariance[0, 0]) * np.sqrt(covariance[1, 1]))
    if norm == 0:
        raise PixelError("an image is constant; its correlation is not defined")
    return float(np.clip(covariance[0, 1] / norm, -1, 1))


def best_affine(image: Image, truth: Image) -> tuple[float, float]:
    """Return a and b that make ``a * image + b`` closest to `truth` in the sense of least squares.

    Parameters
    ----------
    image, truth
        Equal shape.

    Returns
    -------
    tuple of float
        ``(a, b)``; ``(0, mean of truth)`` if `image` is constant.
    """
    (mean, target), covariance = means_and_covariances(*_checked(image, truth))
    slope = float(covariance[0, 1] / covariance[0, 0]) if covariance[0, 0] > 0 else 0.0
    return slope, float(target - slope * mean)


def _checked(image: Image, truth: Image) -> tuple[Image, Image]:
    first, second = np.asarray(image), np.asarray(truth)
    if first.shape != second.shape or first.size == 0:
        raise ShapeError(f"images of shape {first.shape} and {second.shape}; they must be equal and not empty")
    return first, second
