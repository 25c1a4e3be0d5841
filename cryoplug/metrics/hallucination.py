"""Does a denoiser see things that are not there? Give it pure noise with the measured spectrum: all output is made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryoplug.metrics.pixel import Image
from cryoplug.metrics.rings import Curve, Rings, apply_radial, spectrum
from cryoplug.metrics.sums import inner_product, row_bands
from cryoplug.metrics.transformed import Transformed

_MARGIN_PX = 16


@dataclass(frozen=True)
class Hallucination:
    """Pure noise before and after a denoiser."""

    noise_std: float
    """Standard deviation of the input noise, in the unit of the image."""
    output_std: float
    """Standard deviation of the output."""
    share: float
    """Variance of the output over that of the denoised image: at 1, noise alone gives as much contrast."""
    excess_kurtosis: float
    """Excess kurtosis of the output: 0 for Gaussian noise after a linear filter, positive if blobs and edges stand out."""
    mean_frequency: float
    """Mean frequency of the output's power, cycles per pixel: low if noise was gathered into large structures."""


def noise_spectrum(
    raw: Image | Transformed, other: Image | Transformed, rings: Rings, *, other_is_truth: bool
) -> Curve:
    """Measure the power of the noise in an image, ring by ring.

    Parameters
    ----------
    raw
        ``(y, x)``, the noisy image or half.
    other
        The other half, or the truth.
    rings
        Rings for its shape.
    other_is_truth
        Whether `other` is the truth, which may have another scale than `raw`.

    Returns
    -------
    ndarray
        Variance in each ring, not below 0: ``var(Re) - cov(Re, Ro)``, or ``var(x) - cov(x, t)^2 / var(t)``.
    """
    one, two = Transformed.of(raw).tapered, Transformed.of(other).tapered
    power, cross = rings.cross(one, one), rings.cross(one, two)
    if not other_is_truth:
        return np.maximum(power - cross, 0)
    truth = rings.cross(two, two)
    explained = np.divide(cross**2, truth, out=np.zeros_like(cross), where=truth > 0)
    return np.maximum(power - explained, 0)


def synthesize_noise(power: Curve, rings: Rings, *, mean: float, seed: int) -> npt.NDArray[np.float32]:
    """Draw Gaussian noise of a given spectrum.

    Parameters
    ----------
    power
        Variance in each ring.
    rings
        Rings for the image to make.
    mean
        Mean of the result.
    seed
        Not negative; the same seed gives the same noise.

    Returns
    -------
    ndarray
        ``(y, x)`` float32.
    """
    white = np.random.default_rng(seed).standard_normal(rings.shape)
    white -= white.mean()
    share = rings.count / rings.count.sum()
    return apply_radial(white.astype(np.float32), np.sqrt(power / share), rings) + np.float32(mean)


def hallucinate(
    noise: npt.NDArray[np.float32], denoise: Callable[[Image], Image], *, denoised: Image
) -> tuple[Hallucination, Image]:
    """Apply a denoiser to noise, and measure the output.

    16 pixels at each border (fewer in small images) do not count, because the zero padding of a network can leave a frame
    there.

    Parameters
    ----------
    noise
        From `synthesize_noise`.
    denoise
        The denoiser.
    denoised
        The denoised micrograph, for `Hallucination.share`.

    Returns
    -------
    tuple
        The measurement, and the output image.
    """
    output = denoise(noise)
    inner = _inner(output)
    variance, fourth = _moments(inner)
    denoised_variance = float(np.var(_inner(denoised), dtype=np.float64))
    result = Hallucination(
        noise_std=float(_inner(noise).std(dtype=np.float64)),
        output_std=float(np.sqrt(variance)),
        share=variance / denoised_variance if denoised_variance > 0 else float("nan"),
        excess_kurtosis=fourth / variance**2 - 3 if variance > 0 else float("nan"),
        mean_frequency=_mean_frequency(inner),
    )
    return result, output


def _inner(image: Image) -> Image:
    return image[
        tuple(slice(margin, -margin or None) for margin in (min(_MARGIN_PX, side // 8) for side in image.shape))
    ]


def _moments(image: Image) -> tuple[float, float]:
    """Give the second and the fourth moment about the mean."""
    mean, second, fourth = np.mean(image, dtype=np.float64), 0.0, 0.0
    for rows in row_bands(image.shape):
        squares = np.square(np.subtract(image[rows], mean, dtype=np.float64)).ravel()
        second += float(squares.sum())
        fourth += inner_product(squares, squares)
    return second / image.size, fourth / image.size


def _mean_frequency(image: Image) -> float:
    rings = Rings.of((image.shape[0], image.shape[1]))
    terms = spectrum(image, taper=True)
    power = rings.cross(terms, terms)
    return float((rings.frequency * power).sum() / power.sum()) if power.sum() > 0 else float("nan")
