"""Fourier space in rings: variance, covariance and correlation of images at each spatial frequency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryoplug.errors import ShapeError, UsageError
from cryoplug.metrics.pixel import Image

Curve = npt.NDArray[np.float64]
Spectrum = npt.NDArray[np.complexfloating]

MOST_RINGS = 256
"""Most rings up to Nyquist: enough for a curve on paper. In a 4096-pixel image a ring is then 8 times the finest width."""
TAPER = 0.125
"""Part of each side along which an image fades out, so that the step between opposite borders leaves no cross."""


@dataclass(frozen=True, eq=False)
class Rings:
    """Rings of equal width around frequency 0, for images of one shape.

    Ring ``k`` holds the frequencies nearest to ``frequency[k]``. If rings are as fine as possible, ring 0 holds only
    frequency 0. More rings, beyond 0.5 cycles per pixel, reach into the corners, so that all rings together hold all terms.
    """

    shape: tuple[int, int]
    """``(y, x)`` of the images."""
    frequency: Curve
    """Middle of each ring in cycles per pixel, from 0."""
    count: npt.NDArray[np.int64]
    """Fourier terms in each ring; all together ``y * x``."""
    index: npt.NDArray[np.int32]
    """Ring of each term of `numpy.fft.rfft2`, ``(y, x // 2 + 1)``."""

    @classmethod
    def of(cls, shape: tuple[int, int], *, most: int = MOST_RINGS) -> Rings:
        """Divide Fourier space.

        Parameters
        ----------
        shape
            ``(y, x)``, at least 4 on each side.
        most
            Rings up to 0.5 cycles per pixel are as many as half the shorter side has pixels, but at most so many.
        """
        if len(shape) != 2 or min(shape) < 4 or most < 1:
            raise ShapeError(f"shape {tuple(shape)}, {most} rings; needed: (y, x), 4 pixels or more a side, and a ring")
        width = 0.5 / min(min(shape) // 2, most)
        index = np.rint(frequencies(shape) / width).astype(np.int32)
        count = np.rint(np.bincount(index.ravel(), _weights(shape).ravel())).astype(np.int64)
        return cls(shape, np.arange(len(count), dtype=np.float64) * width, count, index)

    @property
    def to_nyquist(self) -> slice:
        """The rings that a curve shows: from the first after frequency 0 to 0.5 cycles per pixel."""
        return slice(1, int(np.searchsorted(self.frequency, 0.5 + 1e-9)))

    def cross(self, one: Spectrum, two: Spectrum) -> Curve:
        """Return each ring's part of the covariance of two images.

        Parameters
        ----------
        one, two
            From `spectrum`.

        Returns
        -------
        ndarray
            Square of the images' unit; the sum over all rings is the covariance (Parseval's theorem).
        """
        product = (one.real * two.real + one.imag * two.imag) * _weights(self.shape)
        sums = np.bincount(self.index.ravel(), product.ravel(), minlength=len(self.count))
        return sums / float(self.shape[0] * self.shape[1]) ** 2


def frequencies(shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return the frequency of each term of `numpy.fft.rfft2`, in cycles per pixel, ``(y, x // 2 + 1)``."""
    return np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])


def spectrum(image: Image, *, taper: bool = False) -> Spectrum:
    """Transform an image minus its mean.

    Parameters
    ----------
    image
        ``(y, x)``.
    taper
        Fade out towards the borders (a Tukey window), and correct for the loss of variance. Without it the sums of
        `Rings.cross` are exact, but a gradient across the image reaches to the highest frequencies.

    Returns
    -------
    ndarray
        Terms of `numpy.fft.rfft2`; the one of frequency 0 is 0.
    """
    pixels = np.asarray(image, np.float64)
    if not taper:
        return np.fft.rfft2(pixels - pixels.mean())
    window = _fade(pixels.shape[0])[:, None] * _fade(pixels.shape[1])[None]
    faded = (pixels - (pixels * window).sum() / window.sum()) * window
    return np.fft.rfft2(faded) / np.sqrt((window**2).mean())


def ring_correlation(cross: Curve, one: Curve, two: Curve) -> Curve:
    """Return the Fourier ring correlation ``cross / sqrt(one * two)`` (Saxton and Baumeister 1982).

    Parameters
    ----------
    cross
        Covariance of two images in each ring.
    one, two
        Their variances.

    Returns
    -------
    ndarray
        In [-1, 1]; NaN if a variance is not above 0.
    """
    scale = np.sqrt(np.maximum(one, 0) * np.maximum(two, 0))
    return np.divide(cross, scale, out=np.full_like(scale, np.nan), where=scale > 0)


def crossing(frequency: Curve, correlation: Curve, threshold: float) -> float:
    """Return where a correlation first falls below a threshold, interpolated linearly between rings.

    Parameters
    ----------
    frequency, correlation
        The curve, lowest frequency first, without frequency 0; rings of NaN are passed over.
    threshold
        0.5 and 0.143 are customary.

    Returns
    -------
    float
        Unit of `frequency`; the first frequency if the curve begins below, NaN if it never falls below. At a zero of the
        CTF a curve may fall below and rise again; the first fall counts.
    """
    known = np.isfinite(correlation)
    frequency, correlation = frequency[known], correlation[known]
    below = np.flatnonzero(correlation < threshold)
    if not below.size:
        return float("nan")
    at = int(below[0])
    if at == 0:
        return float(frequency[0])
    high, low = float(correlation[at - 1]), float(correlation[at])
    share = (high - threshold) / (high - low)
    return float(frequency[at - 1] + share * (frequency[at] - frequency[at - 1]))


def apply_radial(image: Image, gain: Curve, rings: Rings) -> npt.NDArray[np.float32]:
    """Multiply every Fourier term by the gain of its ring; the mean stays, and opposite borders join.

    Parameters
    ----------
    image
        ``(y, x)``.
    gain
        A number for each ring of `rings`.
    """
    if len(gain) != len(rings.count):
        raise UsageError(f"{len(gain)} gains for {len(rings.count)} rings; give one for each")
    pixels = np.asarray(image, np.float64)
    if pixels.shape != rings.shape:
        raise ShapeError(f"image of shape {pixels.shape}, rings for {rings.shape}; they must be equal")
    mean = pixels.mean()
    filtered = np.fft.irfft2(np.fft.rfft2(pixels - mean) * gain[rings.index], s=rings.shape)
    return (filtered + mean).astype(np.float32)


def _weights(shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Give how often each term of rfft2 occurs in the whole transform: twice, except for columns that mirror themselves."""
    weights = np.full((shape[0], shape[1] // 2 + 1), 2.0)
    weights[:, 0] = 1
    if shape[1] % 2 == 0:
        weights[:, -1] = 1
    return weights


def _fade(length: int) -> npt.NDArray[np.float64]:
    position = (np.arange(length) + 0.5) / length
    near = np.minimum(np.minimum(position, 1 - position) / TAPER, 1)
    return 0.5 - 0.5 * np.cos(np.pi * near)
