"""The filter that a network must beat: the best Gaussian blur, chosen with the truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from cryoplug.errors import UsageError
from cryoplug.metrics.pixel import Image, best_affine, mse
from cryoplug.metrics.rings import filtered, without_mean
from cryoplug.metrics.transforms import forward

_SIGMAS = np.geomspace(0.3, 32, 28)
_REFINEMENTS = 12


def gaussian_blur(image: Image, sigma_px: float) -> npt.NDArray[np.float32]:
    """Blur with a Gaussian; the image is mirrored at its borders.

    Parameters
    ----------
    image
        ``(y, x)``.
    sigma_px
        Standard deviation in pixels, 0 (no blur) or more; at most the shorter side of the image.

    Returns
    -------
    ndarray
        Same shape and mean grey scale, float32.
    """
    if not 0 <= sigma_px <= min(image.shape):
        raise UsageError(f"sigma_px: {sigma_px:g}; allowed 0 to {min(image.shape)}, the shorter side")
    return _Blurrer(image, sigma_px)(sigma_px)


def best_gaussian(noisy: Image, truth: Image) -> tuple[float, npt.NDArray[np.float32]]:
    """Find the Gaussian blur that comes closest to the truth after the best ``a*x + b``.

    The choice uses the truth, which no denoiser sees. So a network that beats it has learnt something about images.

    Parameters
    ----------
    noisy, truth
        ``(y, x)``, equal shape.

    Returns
    -------
    tuple
        Standard deviation in pixels (0.3 to 32, to about 1 %; less on images under 128 pixels) and the blurred image.
    """
    largest = max(min(noisy.shape) / 4, float(_SIGMAS[1]))
    sigmas = np.array([sigma for sigma in _SIGMAS if sigma <= largest])
    blur = _Blurrer(noisy, float(sigmas[-1]))

    def error(sigma: float) -> float:
        image = blur(sigma)
        slope, offset = best_affine(image, truth)
        return mse(slope * image.astype(np.float64) + offset, truth)

    errors = [error(float(sigma)) for sigma in sigmas]
    best = int(np.argmin(errors))
    low, high = float(sigmas[max(best - 1, 0)]), float(sigmas[min(best + 1, len(sigmas) - 1)])
    for _ in range(_REFINEMENTS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if error(left) < error(right) else (left, high)
    sigma = min((low + high) / 2, float(sigmas[best]), key=error)
    return sigma, blur(sigma)


class _Blurrer:
    """Transforms an image once and blurs it often."""

    def __init__(self, image: Image, largest_sigma: float) -> None:
        pad = min(int(np.ceil(6 * largest_sigma)), *image.shape)
        self._window = (slice(pad, pad + image.shape[0]), slice(pad, pad + image.shape[1]))
        pixels, self._mean = without_mean(image)
        padded = np.pad(pixels, pad, mode="symmetric")
        self._shape = (padded.shape[0], padded.shape[1])
        self._terms = forward(padded)

    def __call__(self, sigma: float) -> npt.NDArray[np.float32]:
        gain = gaussian_gain(self._shape, sigma)
        return filtered(self._terms, gain, mean=self._mean, shape=self._shape)[self._window]


def gaussian_gain(shape: tuple[int, int], sigma_px: float) -> Callable[[slice], npt.NDArray[np.float64]]:
    """Give a Gaussian blur as a gain for `cryoplug.metrics.rings.filtered`."""
    y, x = (
        np.exp(-2 * (np.pi * sigma_px * each) ** 2) for each in (np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1]))
    )
    return lambda rows: y[rows, None] * x
