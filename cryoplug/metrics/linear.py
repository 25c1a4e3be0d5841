"""The filters that a network must beat, fitted on the same data by which it is judged.

The judge is the truth, if there is one, else the other half of the exposure. In both cases these filters see the judge,
which no denoiser does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.metrics.halves import HalfImages, ring_moments
from cryoplug.metrics.pixel import Image, best_affine
from cryoplug.metrics.rings import Rings, Spectrum, apply_radial, frequencies, spectrum

ImageF32 = npt.NDArray[np.float32]
Filter = Callable[[Image], ImageF32]

_SIGMAS = np.geomspace(0.3, 64, 40)
_REFINEMENTS = 14
_WIENER_RINGS = 128
_MARGIN_PX = 64
"""Pixels by which the image is continued by its mirror image for filters, as for the Gaussian blur; so borders do not join."""
_SIGNIFICANT = 4.0
"""With the other half as judge, rings are joined until their signal exceeds chance by this many standard errors."""


@dataclass(frozen=True, eq=False)
class Baselines:
    """Fitted filters by name, ready for either half, and their parameters."""

    filters: dict[str, Filter]
    """A function that filters an image, for each of `cryoplug.metrics.baseline_names.BASELINES`."""
    gaussian_sigma_px: float
    """Standard deviation of the best Gaussian."""
    slope: float
    """The a of the best ``a*x + b``."""


def fit_baselines(raw: Image, judge: Image, *, judge_is_truth: bool) -> Baselines:
    """Fit every baseline so that it brings `raw` as close to `judge` as possible.

    Parameters
    ----------
    raw, judge
        ``(y, x)``, equal shape.
    judge_is_truth
        Whether the judge has no noise. Then the Wiener gains are fitted and applied on the whole image, in the finest rings:
        no isotropic linear filter can be better. Else the gains ``1 / (1 + 1/SSNR)`` of the upper part of the image are
        applied to the lower part, and the other way round, so that they cannot follow the judge's noise.
    """
    slope, offset = best_affine(raw, judge)
    sigma = best_gaussian_sigma(raw, judge)
    slope_blurred, offset_blurred = best_affine(gaussian_blur(raw, sigma), judge)
    wiener = _wiener_of_truth(raw, judge) if judge_is_truth else _crossed_wiener(raw, judge)
    return Baselines(
        {
            "identity": lambda image: np.asarray(image, np.float32),
            "affine": lambda image: _affine(image, slope, offset),
            "gaussian": lambda image: _affine(gaussian_blur(image, sigma), slope_blurred, offset_blurred),
            "wiener": wiener,
        },
        sigma,
        slope,
    )


def best_gaussian_sigma(raw: Image, judge: Image) -> float:
    """Find the Gaussian whose result correlates best with the judge.

    This Gaussian has the smallest mean squared error after the best ``a*x + b``. Covariance and variance of the blurred
    image are sums over its spectrum, so one transform is enough for all widths.

    Returns
    -------
    float
        Standard deviation in pixels, 0.3 to 64, to about 1 %; at most a quarter of the shorter side.
    """
    one, two = spectrum(raw), spectrum(judge)
    squared = frequencies((raw.shape[0], raw.shape[1])) ** 2
    cross, power = _fine_rings(raw, one, two), _fine_rings(raw, one, one)
    middle = _fine_rings(raw, one, one, weight=squared)
    squared_frequency = np.divide(middle, power, out=np.zeros_like(middle), where=power > 0)

    def merit(sigma: float) -> float:
        gain = np.exp(-2 * np.pi**2 * sigma**2 * squared_frequency)
        variance = float((gain**2 * power).sum())
        return float((gain * cross).sum()) / np.sqrt(variance) if variance > 0 else -np.inf

    largest = max(min(raw.shape) / 4, float(_SIGMAS[1]))
    sigmas = [float(sigma) for sigma in _SIGMAS if sigma <= largest]
    best = int(np.argmax([merit(sigma) for sigma in sigmas]))
    low, high = sigmas[max(best - 1, 0)], sigmas[min(best + 1, len(sigmas) - 1)]
    for _ in range(_REFINEMENTS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if merit(left) > merit(right) else (left, high)
    return max((low + high) / 2, sigmas[best], key=merit)


def _fine_rings(image: Image, one: Spectrum, two: Spectrum, *, weight: np.ndarray | None = None) -> np.ndarray:
    rings = Rings.of((image.shape[0], image.shape[1]), most=max(image.shape))
    return rings.cross(one if weight is None else one * weight, two)


def _wiener_of_truth(raw: Image, truth: Image) -> Filter:
    rings = _rings_with_margin(raw, most=2 * max(raw.shape))
    one, two = spectrum(_mirrored(raw)), spectrum(_mirrored(truth))
    cross, power = rings.cross(one, two), rings.cross(one, one)
    gain = np.divide(cross, power, out=np.zeros_like(cross), where=power > 0)
    shift = float(np.mean(truth, dtype=np.float64)) - float(np.mean(raw, dtype=np.float64))
    return lambda image: _filtered(image, gain, rings) + np.float32(shift)


def _crossed_wiener(raw: Image, judge: Image) -> Filter:
    middle = raw.shape[0] // 2
    rings = _rings_with_margin(raw, most=_WIENER_RINGS)
    gains = []
    for rows in (slice(middle, None), slice(0, middle)):
        part = HalfImages(raw[rows], judge[rows], raw[rows])
        fitted_on = Rings.of((part.raw.shape[0], part.raw.shape[1]), most=_WIENER_RINGS)
        gains.append(np.interp(rings.frequency, fitted_on.frequency, _steady_gain(part, fitted_on)))

    def apply(image: Image) -> ImageF32:
        upper, lower = (_filtered(image, gain, rings) for gain in gains)
        return np.concatenate([upper[:middle], lower[middle:]])

    return apply


def _steady_gain(part: HalfImages, rings: Rings) -> np.ndarray:
    """Give ``1 / (1 + 1/SSNR)`` for each ring, averaged over neighbouring rings if one alone is too noisy."""
    moments = ring_moments(part, rings)
    signal, power = np.asarray(moments.signal), np.asarray(moments.input_variance)
    chance = power * np.asarray(moments.judge_variance) / rings.count
    gain = np.zeros(len(signal))
    start = 0
    for stop in range(1, len(signal) + 1):
        group = slice(start, stop)
        found, total = float(signal[group].sum()), float(power[group].sum())
        if found > _SIGNIFICANT * np.sqrt(float(chance[group].sum())) or stop == len(signal):
            gain[group] = min(max(found / total, 0.0), 1.0) if total > 0 else 0.0
            start = stop
    return gain


def _mirrored(image: Image) -> np.ndarray:
    return np.pad(
        np.asarray(image, np.float64), [(min(_MARGIN_PX, side),) * 2 for side in image.shape], mode="symmetric"
    )


def _rings_with_margin(image: Image, *, most: int) -> Rings:
    height, width = (side + 2 * min(_MARGIN_PX, side) for side in image.shape)
    return Rings.of((height, width), most=most)


def _filtered(image: Image, gain: np.ndarray, rings: Rings) -> ImageF32:
    inside = tuple(slice(min(_MARGIN_PX, side), min(_MARGIN_PX, side) + side) for side in image.shape)
    return apply_radial(_mirrored(image), gain, rings)[inside]


def _affine(image: Image, slope: float, offset: float) -> ImageF32:
    return (slope * np.asarray(image, np.float64) + offset).astype(np.float32)
