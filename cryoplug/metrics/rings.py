"""Fourier space in rings: variance, covariance and correlation of images at each spatial frequency."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryoplug.errors import ShapeError, UsageError
from cryoplug.metrics.pixel import Image
from cryoplug.metrics.sums import row_bands
from cryoplug.metrics.transforms import backward, forward, precision_of

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
        index = np.empty((shape[0], shape[1] // 2 + 1), np.int32)
        for rows in row_bands(index.shape):
            index[rows] = np.rint(frequencies(shape, rows) / width)
        frequency = np.arange(int(index.max()) + 1, dtype=np.float64) * width
        empty = cls(shape, frequency, np.zeros(len(frequency), np.int64), index)
        count = empty.sums(lambda rows: np.ones(index[rows].shape))
        return dataclasses.replace(empty, count=np.rint(count).astype(np.int64))

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
        sums = self.sums(lambda rows: real_product(one[rows], two[rows]))
        return sums / float(self.shape[0] * self.shape[1]) ** 2

    def sums(self, of_rows: Callable[[slice], npt.NDArray[np.floating]]) -> Curve:
        """Add up a value of each Fourier term, ring by ring.

        Parameters
        ----------
        of_rows
            Gives the values of some rows of `numpy.fft.rfft2`. The terms that it leaves out, because they mirror others, count.
        """
        weights, total = _weights(self.shape), np.zeros(len(self.count))
        for rows in row_bands(self.index.shape):
            values = of_rows(rows) * weights
            total += np.bincount(self.index[rows].ravel(), values.ravel(), minlength=len(total))
        return total


def real_product(one: Spectrum, two: Spectrum) -> npt.NDArray[np.floating]:
    """Multiply terms by the conjugates of others; give the real parts."""
    return one.real * two.real + one.imag * two.imag


def frequencies(shape: tuple[int, int], rows: slice = slice(None)) -> npt.NDArray[np.float64]:
    """Return the frequency of each term of `numpy.fft.rfft2`, or of some of its rows, in cycles per pixel."""
    return np.hypot(np.fft.fftfreq(shape[0])[rows, None], np.fft.rfftfreq(shape[1])[None])


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
    if not taper:
        return forward(without_mean(image)[0])
    y, x = (_fade(side) for side in image.shape)
    bands = list(row_bands(image.shape))
    mean = sum(float(y[rows] @ (np.asarray(image[rows], np.float64) @ x)) for rows in bands) / (y.sum() * x.sum())
    # The window takes away variance; divided by this, the image has it back.
    x = x / np.sqrt((y**2).mean() * (x**2).mean())
    faded = np.empty(image.shape, precision_of(image))
    for rows in bands:
        faded[rows] = np.subtract(image[rows], mean, dtype=np.float64) * y[rows, None] * x
    return forward(faded)


def without_mean(image: Image) -> tuple[Image, float]:
    """Give an image without its mean, in the type in which it is transformed, and the mean."""
    mean = np.mean(image, dtype=np.float64)
    pixels = np.empty(image.shape, precision_of(image))
    for rows in row_bands(image.shape):
        pixels[rows] = np.subtract(image[rows], mean, dtype=np.float64)
    return pixels, float(mean)


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
    if image.shape != rings.shape:
        raise ShapeError(f"image of shape {image.shape}, rings for {rings.shape}; they must be equal")
    pixels, mean = without_mean(image)
    return filtered(forward(pixels), lambda rows: gain[rings.index[rows]], mean=mean, shape=rings.shape)


def filtered(
    terms: Spectrum, gain: Callable[[slice], npt.NDArray[np.floating]], *, mean: float, shape: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Give the image of these terms, each multiplied by its gain.

    Parameters
    ----------
    terms
        From `cryoplug.metrics.transforms.forward`, without the mean.
    gain
        Gives the gains of some rows of terms.
    mean
        Mean of the result.
    shape
        ``(y, x)`` of the result.
    """
    weighted = np.empty_like(terms)
    for rows in row_bands(terms.shape):
        weighted[rows] = terms[rows] * gain(rows)
    image = backward(weighted, shape)
    image += mean
    return image.astype(np.float32, copy=False)


def _weights(shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Give how often the terms of each column of rfft2 occur in the whole transform: twice, unless a column mirrors itself."""
    weights = np.full(shape[1] // 2 + 1, 2.0)
    weights[0] = 1
    if shape[1] % 2 == 0:
        weights[-1] = 1
    return weights


def _fade(length: int) -> npt.NDArray[np.float64]:
    position = (np.arange(length) + 0.5) / length
    near = np.minimum(np.minimum(position, 1 - position) / TAPER, 1)
    return 0.5 - 0.5 * np.cos(np.pi * near)
