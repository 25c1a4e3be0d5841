"""The filter that a network must beat: the best Gaussian blur, chosen with the truth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cryoplug.errors import UsageError
from cryoplug.metrics.pixel import Image, best_affine, mse

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
        padded = np.pad(np.asarray(image, np.float64), pad, mode="symmetric")
        self._shape = padded.shape
        self._spectrum = np.fft.rfft2(padded)
        y = np.fft.fftfreq(self._shape[0])[:, None]
        x = np.fft.rfftfreq(self._shape[1])[None, :]
        self._squared = y**2 + x**2

    def __call__(self, sigma: float) -> npt.NDArray[np.float32]:
        filtered = self._spectrum * np.exp(-2 * np.pi**2 * sigma**2 * self._squared)
        return np.fft.irfft2(filtered, s=self._shape)[self._window].astype(np.float32)
