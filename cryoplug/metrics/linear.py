"""The filters that a network must beat, fitted on the same data by which it is judged.

The judge is the truth, if there is one, else the other half of the exposure. In both cases these filters see the judge,
which no denoiser does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryoplug.metrics.baselines import gaussian_blur, gaussian_gain
from cryoplug.metrics.halves import RingPowers
from cryoplug.metrics.pixel import Image, best_affine
from cryoplug.metrics.rings import Curve, Rings, Spectrum, filtered, frequencies, real_product, spectrum
from cryoplug.metrics.sums import row_bands
from cryoplug.metrics.transformed import MARGIN_PX, Transformed, mirrored_shape

ImageF32 = npt.NDArray[np.float32]
Filter = Callable[[Image | Transformed], ImageF32]

_SIGMAS = np.geomspace(0.3, 64, 40)
_REFINEMENTS = 14
_WIENER_RINGS = 128
_SIGNIFICANT = 4.0
"""With the other half as judge, rings are joined until their signal exceeds chance by this many standard errors."""


@dataclass(frozen=True)
class AffineBlur:
    """A Gaussian blur and ``a*x + b`` after it."""

    sigma_px: float
    """Standard deviation of the Gaussian in pixels."""
    slope: float
    """The a."""
    offset: float
    """The b."""

    def __call__(self, image: Image | Transformed) -> ImageF32:
        """Filter an image ``(y, x)``."""
        return _affine(_blurred(Transformed.of(image), self.sigma_px), self.slope, self.offset)


@dataclass(frozen=True, eq=False)
class Baselines:
    """Fitted filters, ready for either half."""

    slope: float
    """The a of the best ``a*x + b``."""
    offset: float
    """The b."""
    gaussian: AffineBlur
    """The best Gaussian, and the best ``a*x + b`` after it."""
    wiener: Filter
    """One gain for each Fourier ring."""

    @property
    def filters(self) -> dict[str, Filter]:
        """A function that filters an image, for each of `cryoplug.metrics.baseline_names.BASELINES`."""
        return {
            "identity": lambda image: np.asarray(Transformed.of(image).image, np.float32),
            "affine": lambda image: _affine(Transformed.of(image).image, self.slope, self.offset),
            "gaussian": self.gaussian,
            "wiener": self.wiener,
        }


def fit_baselines(raw: Image | Transformed, judge: Image | Transformed, *, judge_is_truth: bool) -> Baselines:
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
    raw, judge = Transformed.of(raw), Transformed.of(judge)
    if not judge_is_truth:
        return _fitted(raw, judge, _Both.of(raw.image, judge.image))
    return Baselines(*best_affine(raw.image, judge.image), fit_gaussian(raw, judge), _wiener_of_truth(raw, judge))


def fit_both_ways(even: Transformed, odd: Transformed) -> tuple[Baselines, Baselines]:
    """Fit every baseline to bring the even half close to the odd one, and the odd half to the even one."""
    both = _Both.of(even.image, odd.image)
    return _fitted(even, odd, both), _fitted(odd, even, both.turned)


def _fitted(raw: Transformed, judge: Transformed, both: _Both) -> Baselines:
    gaussian = _with_affine(raw, judge, both.whole.best_sigma(raw.shape))
    return Baselines(*best_affine(raw.image, judge.image), gaussian, _crossed_wiener(raw.shape, both.parts))


def fit_gaussian(raw: Transformed, judge: Transformed) -> AffineBlur:
    """Fit the best Gaussian, and the best ``a*x + b`` after it."""
    return _with_affine(raw, judge, best_gaussian_sigma(raw.image, judge.image))


def _with_affine(raw: Transformed, judge: Transformed, sigma: float) -> AffineBlur:
    return AffineBlur(sigma, *best_affine(_blurred(raw, sigma), judge.image))


def best_gaussian_sigma(raw: Image, judge: Image) -> float:
    """Find the Gaussian whose result correlates best with the judge.

    This Gaussian has the smallest mean squared error after the best ``a*x + b``. Covariance and variance of the blurred
    image are sums over its spectrum, so one transform is enough for all widths.

    Returns
    -------
    float
        Standard deviation in pixels, 0.3 to 64, to about 1 %; at most a quarter of the shorter side.
    """
    return _FineRings.of(raw, judge).best_sigma(raw.shape)


@dataclass(frozen=True, eq=False)
class _FineRings:
    """What two whole images share in the finest rings, and what each of them has."""

    cross: Curve
    powers: tuple[Curve, Curve]
    squares: tuple[Curve, Curve]
    """Mean square of the frequency in each ring, weighted with the power."""

    @classmethod
    def of(cls, one: Image, other: Image) -> _FineRings:
        shape = one.shape[0], one.shape[1]
        rings, spectra = Rings.of(shape, most=max(shape)), (spectrum(one), spectrum(other))
        first, second = (_power_and_square(terms, rings) for terms in spectra)
        return cls(rings.cross(*spectra), (first[0], second[0]), (first[1], second[1]))

    @property
    def turned(self) -> _FineRings:
        return _FineRings(self.cross, self.powers[::-1], self.squares[::-1])

    def best_sigma(self, shape: tuple[int, ...]) -> float:
        """See `best_gaussian_sigma`."""
        cross, power, squared_frequency = self.cross, self.powers[0], self.squares[0]

        def merit(sigma: float) -> float:
            gain = np.exp(-2 * np.pi**2 * sigma**2 * squared_frequency)
            variance = float((gain**2 * power).sum())
            return float((gain * cross).sum()) / np.sqrt(variance) if variance > 0 else -np.inf

        largest = max(min(shape) / 4, float(_SIGMAS[1]))
        sigmas = [float(sigma) for sigma in _SIGMAS if sigma <= largest]
        best = int(np.argmax([merit(sigma) for sigma in sigmas]))
        low, high = sigmas[max(best - 1, 0)], sigmas[min(best + 1, len(sigmas) - 1)]
        for _ in range(_REFINEMENTS):
            left, right = low + (high - low) / 3, high - (high - low) / 3
            low, high = (low, right) if merit(left) > merit(right) else (left, high)
        return max((low + high) / 2, sigmas[best], key=merit)


def _power_and_square(terms: Spectrum, rings: Rings) -> tuple[Curve, Curve]:
    def weighted(rows: slice) -> npt.NDArray[np.floating]:
        return frequencies(rings.shape, rows) ** 2 * real_product(terms[rows], terms[rows])

    power, middle = rings.cross(terms, terms), rings.sums(weighted) / float(rings.shape[0] * rings.shape[1]) ** 2
    return power, np.divide(middle, power, out=np.zeros_like(middle), where=power > 0)


@dataclass(frozen=True, eq=False)
class _Both:
    """What the fits need of two halves: sums over rings, without their spectra."""

    whole: _FineRings
    parts: tuple[RingPowers, RingPowers]
    """Of the lower and of the upper part."""

    @classmethod
    def of(cls, one: Image, other: Image) -> _Both:
        middle = one.shape[0] // 2
        lower, upper = (_part(one[rows], other[rows]) for rows in (slice(middle, None), slice(0, middle)))
        return cls(_FineRings.of(one, other), (lower, upper))

    @property
    def turned(self) -> _Both:
        lower, upper = self.parts
        return _Both(self.whole.turned, (lower.turned, upper.turned))


def _part(one: Image, other: Image) -> RingPowers:
    rings = Rings.of((one.shape[0], one.shape[1]), most=_WIENER_RINGS)
    return RingPowers.of(spectrum(one, taper=True), spectrum(other, taper=True), rings)


def _wiener_of_truth(raw: Transformed, truth: Transformed) -> Filter:
    rings = Rings.of(mirrored_shape(raw.shape), most=2 * max(raw.shape))
    cross, power = rings.cross(raw.mirrored, truth.mirrored), rings.cross(raw.mirrored, raw.mirrored)
    gain = np.divide(cross, power, out=np.zeros_like(cross), where=power > 0)
    shift = float(np.mean(truth.image, dtype=np.float64)) - float(np.mean(raw.image, dtype=np.float64))
    return lambda image: _ring_filtered(Transformed.of(image), gain, rings) + np.float32(shift)


def _crossed_wiener(shape: tuple[int, int], parts: tuple[RingPowers, RingPowers]) -> Filter:
    middle = shape[0] // 2
    rings = Rings.of(mirrored_shape(shape), most=_WIENER_RINGS)
    gains = [np.interp(rings.frequency, part.rings.frequency, _steady_gain(part)) for part in parts]

    def apply(image: Image | Transformed) -> ImageF32:
        image = Transformed.of(image)
        result = np.empty(image.shape, np.float32)
        for rows, gain in zip((slice(0, middle), slice(middle, None)), gains, strict=True):
            result[rows] = _ring_filtered(image, gain, rings)[rows]
        return result

    return apply


def _steady_gain(part: RingPowers) -> np.ndarray:
    """Give ``1 / (1 + 1/SSNR)`` for each ring, averaged over neighbouring rings if one alone is too noisy."""
    signal, power = part.signal, part.input_variance
    chance = power * part.judge_variance / part.rings.count
    gain = np.zeros(len(signal))
    start = 0
    for stop in range(1, len(signal) + 1):
        group = slice(start, stop)
        found, total = float(signal[group].sum()), float(power[group].sum())
        if found > _SIGNIFICANT * np.sqrt(float(chance[group].sum())) or stop == len(signal):
            gain[group] = min(max(found / total, 0.0), 1.0) if total > 0 else 0.0
            start = stop
    return gain


def _blurred(image: Transformed, sigma_px: float) -> ImageF32:
    """Blur as `gaussian_blur` does, by the transform that is there if its margin is wide enough."""
    if math.ceil(6 * sigma_px) > MARGIN_PX:
        return gaussian_blur(image.image, sigma_px)
    return _through(image, gaussian_gain(mirrored_shape(image.shape), sigma_px))


def _ring_filtered(image: Transformed, gain: Curve, rings: Rings) -> ImageF32:
    return _through(image, lambda rows: gain[rings.index[rows]])


def _through(image: Transformed, gain: Callable[[slice], npt.NDArray[np.float64]]) -> ImageF32:
    return filtered(image.mirrored, gain, mean=image.mirrored_mean, shape=mirrored_shape(image.shape))[image.inside]


def _affine(image: Image, slope: float, offset: float) -> ImageF32:
    result = np.empty(image.shape, np.float32)
    for rows in row_bands(image.shape):
        result[rows] = np.multiply(image[rows], slope, dtype=np.float64) + offset
    return result
