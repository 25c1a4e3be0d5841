"""All measurements on one micrograph, for a denoiser and for the baselines beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryoplug.errors import UsageError
from cryoplug.metrics.hallucination import Hallucination, hallucinate, noise_spectrum, synthesize_noise
from cryoplug.metrics.halves import (
    PSNR_RANGE_SIGMAS,
    HalfImages,
    HalvesMoments,
    RingPowers,
    halves_moments,
    mean_moments,
    ring_moments_of,
)
from cryoplug.metrics.linear import AffineBlur, fit_baselines, fit_both_ways, fit_gaussian
from cryoplug.metrics.pixel import Image, best_affine
from cryoplug.metrics.rings import Curve, Rings
from cryoplug.metrics.transformed import Transformed
from cryoplug.metrics.truth import TruthJudge, TruthScore

DENOISED = "denoised"
"""Name of the denoiser among the methods; the others are `cryoplug.metrics.baseline_names.BASELINES`."""
DIRECTIONS = ("auto", "even", "odd", "both")
"""Which half is denoised and judged by the other one."""
EQUALLY_NOISY = 1.5
"""Largest ratio of the noise variances of two halves that count as equally noisy."""


@dataclass(frozen=True)
class HalvesScore:
    """The figures of `HalvesMoments` for one method, ready for a record; NaN if an estimate does not exist."""

    error: float
    """B + N: mean squared error to the unknown truth, in the square of the halves' unit."""
    bias: float
    """B: signal that the denoiser removed or added, in the same unit."""
    noise_left: float
    """N: noise that the denoiser left, in the same unit."""
    psnr_db: float
    """Peak signal-to-noise ratio in decibel, with the range `psnr_range`."""
    psnr_range: float
    """Range for the PSNR: six standard deviations of the signal."""
    snr_db: float
    """Signal-to-noise ratio S / (B + N) in decibel."""
    snr_fitted_db: float
    """The same after the best ``a*x + b``."""
    correlation: float
    """corr(De, Ro): correlation of the denoised half with the other raw half."""
    correlation_multiple: float
    """corr(De, Ro) / corr(Re, Ro): how many times better than the raw half."""
    truth_correlation: float
    """Estimated correlation with the unknown truth."""
    residual_correlation: float
    """corr(Re - De, Ro): correlation of the removed part with the other raw half; above 0 signal was removed."""
    signal_removed: float
    """1 - cov(De, Ro) / S: part of the signal that was removed."""

    @classmethod
    def of(cls, moments: HalvesMoments) -> HalvesScore:
        """Derive all figures from the moments of a micrograph."""
        return cls(
            error=float(moments.error),
            bias=float(moments.bias),
            noise_left=float(moments.noise_left),
            psnr_db=_decibel(moments.psnr),
            psnr_range=float(PSNR_RANGE_SIGMAS * np.sqrt(max(float(moments.signal), 0.0))),
            snr_db=_decibel(moments.snr),
            snr_fitted_db=_decibel(moments.snr_fitted),
            correlation=float(moments.correlation),
            correlation_multiple=float(moments.correlation_multiple),
            truth_correlation=float(moments.truth_correlation),
            residual_correlation=float(moments.residual_correlation),
            signal_removed=float(moments.signal_removed),
        )


@dataclass(frozen=True, eq=False)
class HalvesReport:
    """Figures of one micrograph, judged by its halves."""

    directions: tuple[str, ...]
    """Halves that were denoised: ``even`` was judged by the odd half, ``odd`` by the even one. Figures are means over them."""
    signal: float
    """S: variance of the signal, in the square of the halves' unit."""
    raw_correlation: float
    """corr(Re, Ro): correlation of the raw halves."""
    noise_ratio: float
    """Variance of the even half's noise over that of the odd half's. Beyond `EQUALLY_NOISY`, N and B are NaN: if Do comes
    from another noise level than De, they cannot be separated. Their sum needs no Do, and stays valid."""
    gaussian_sigma_px: float
    """Standard deviation of the best Gaussian in pixels, mean over the directions."""
    scores: dict[str, HalvesScore]
    """Figures of each method."""
    frequency: Curve
    """Frequencies of the curves, in cycles per pixel."""
    count: np.ndarray
    """Number of Fourier terms in each ring; more terms mean a smaller error."""
    rings: dict[str, HalvesMoments]
    """Moments of each method, as arrays over `frequency`."""
    gaussians: dict[str, AffineBlur]
    """The best Gaussian of each direction, also of one that was not judged."""


@dataclass(frozen=True, eq=False)
class TruthReport:
    """Figures of one micrograph, judged by its truth."""

    scores: dict[str, TruthScore]
    """Figures of each method."""
    gaussian_sigma_px: float
    """Standard deviation of the best Gaussian in pixels."""
    frequency: Curve
    """Frequencies of the curves, in cycles per pixel."""
    frc: dict[str, Curve]
    """Fourier ring correlation of each method with the truth."""
    gaussian: AffineBlur
    """The best Gaussian."""


@dataclass(frozen=True)
class Agreement:
    """The error estimated from the halves, and the true error, of the same denoised halves."""

    truth_free_error: float
    """B + N: the error estimated without the truth."""
    true_error: float
    """Mean squared difference to the truth, which is brought to the scale of the halves; means do not count."""

    @property
    def deviation(self) -> float:
        """``truth_free_error / true_error - 1``."""
        return self.truth_free_error / self.true_error - 1 if self.true_error > 0 else float("nan")


def choose_directions(even: Image, odd: Image, *, wanted: str, has_odd: bool) -> tuple[str, ...]:
    """Choose which half is denoised.

    Parameters
    ----------
    even, odd
        Raw halves.
    wanted
        One of `DIRECTIONS`. ``auto``: both if they are equally noisy; else the less noisy one, because a denoiser made for
        it may fail on the other.
    has_odd
        Whether the denoised odd half is available.
    """
    if wanted not in DIRECTIONS:
        raise UsageError(f"direction {wanted!r}; allowed: {', '.join(DIRECTIONS)}")
    if wanted in ("odd", "both") and not has_odd:
        raise UsageError(f"direction {wanted}: the denoised odd half is not at hand; give it, or take even")
    if wanted == "auto":
        ratio = noise_ratio(even, odd)
        wanted = "even" if not has_odd else "both" if equally_noisy(ratio) else "even" if ratio < 1 else "odd"
    return ("even", "odd") if wanted == "both" else (wanted,)


def noise_ratio(even: Image, odd: Image) -> float:
    """Return the variance of the noise in one half over that in the other; infinite if the other shows no noise."""
    moments = halves_moments(HalfImages(even, odd, even))
    noise_even, noise_odd = (
        float(variance - moments.signal) for variance in (moments.input_variance, moments.judge_variance)
    )
    return max(noise_even, 0.0) / noise_odd if noise_odd > 0 else math.inf


def equally_noisy(ratio: float) -> bool:
    """Say whether a `noise_ratio` is so near to 1 that the halves count as equally noisy."""
    return 1 / EQUALLY_NOISY <= ratio <= EQUALLY_NOISY


def score_halves(
    raw: tuple[Image | Transformed, Image | Transformed],
    denoised: tuple[Image | None, Image | None],
    directions: Sequence[str],
    *,
    threads: int = 1,
) -> HalvesReport:
    """Judge a denoiser and the baselines by halves.

    Parameters
    ----------
    raw
        Even and odd half, ``(y, x)``.
    denoised
        The denoised halves; those in `directions` are required. With both, N and B are known separately.
    directions
        From `choose_directions`.
    threads
        Threads that share the methods; the figures are the same.
    """
    halves = Transformed.of(raw[0]), Transformed.of(raw[1])
    orders = [0 if direction == "even" else 1 for direction in directions]
    for direction, own in zip(directions, orders, strict=True):
        if denoised[own] is None:
            raise UsageError(f"direction {direction}: its denoised half is not at hand")
    forth = RingPowers.of(halves[0].tapered, halves[1].tapered, Rings.of(halves[0].shape))
    powers = forth, forth.turned
    ratio = noise_ratio(halves[0].image, halves[1].image)
    alike = equally_noisy(ratio)
    fits = fit_both_ways(*halves)

    def measured(own: int, method: str) -> MethodMoments:
        other = 1 - own
        if method in ("identity", "affine"):
            found = _of_raw(halves[own].image, halves[other].image, powers[own], with_other=alike)
            return found if method == "identity" else found.scaled(fits[own].slope)
        if method == DENOISED:
            made, its_other = kept[own], kept[other]
        else:
            apply = fits[own].filters[method]
            made, its_other = Transformed(apply(halves[own])), Transformed(apply(halves[other])) if alike else None
        assert made is not None
        return _of_images(halves[own], halves[other], powers[own], made, its_other if alike else None)

    found = {}
    with ThreadPoolExecutor(threads) as pool:
        for method in (DENOISED, *fits[0].filters):
            # Each denoised half counts in both directions. Their spectra are not needed after that.
            kept = [None if method != DENOISED or image is None else Transformed(image) for image in denoised]
            found[method] = list(pool.map(measured, orders, [method] * len(orders)))
    means = {method: mean_moments([item.whole for item in items]) for method, items in found.items()}
    return HalvesReport(
        directions=tuple(directions),
        signal=float(means[DENOISED].signal),
        raw_correlation=float(means[DENOISED].raw_correlation),
        noise_ratio=ratio,
        gaussian_sigma_px=float(np.mean([fits[own].gaussian.sigma_px for own in orders])),
        scores={method: HalvesScore.of(moments) for method, moments in means.items()},
        frequency=forth.rings.frequency,
        count=forth.rings.count,
        rings={method: mean_moments([item.rings for item in items]) for method, items in found.items()},
        gaussians={"even": fits[0].gaussian, "odd": fits[1].gaussian},
    )


@dataclass(frozen=True, eq=False)
class MethodMoments:
    """The moments of one method in one direction."""

    whole: HalvesMoments
    """Of the whole micrograph."""
    rings: HalvesMoments
    """Of each ring."""

    def scaled(self, factor: float) -> MethodMoments:
        """Give them if the method multiplied its result by a factor."""
        return MethodMoments(self.whole.scaled(factor), self.rings.scaled(factor))


def _of_raw(raw: Image, judge: Image, powers: RingPowers, *, with_other: bool) -> MethodMoments:
    """Measure the method that changes nothing; all follows from the raw halves."""
    whole = halves_moments(HalfImages(raw, judge, raw, judge if with_other else None))
    return MethodMoments(whole, powers.of_identity() if with_other else powers.of_identity().without_other())


def _of_images(
    raw: Transformed, judge: Transformed, powers: RingPowers, made: Transformed, other: Transformed | None
) -> MethodMoments:
    images = HalfImages(raw.image, judge.image, made.image, None if other is None else other.image)
    terms = made.tapered, None if other is None else other.tapered
    return MethodMoments(halves_moments(images), ring_moments_of(powers, raw.tapered, judge.tapered, *terms))


def score_against_truth(
    noisy: Image | Transformed, truth: Image | Transformed, denoised: Image, *, threads: int = 1
) -> TruthReport:
    """Judge a denoiser and the baselines by the truth; all ``(y, x)`` and of equal shape; `threads` share the methods."""
    noisy, truth = Transformed.of(noisy), Transformed.of(truth)
    baselines = fit_baselines(noisy, truth, judge_is_truth=True)
    judge = TruthJudge(truth)
    raw_frc = judge.frc(noisy)

    def measured(method: str) -> tuple[TruthScore, Curve]:
        image = denoised if method == DENOISED else baselines.filters[method](noisy)
        # The scale of an image does not change its correlation.
        scale = {"identity": 1.0, "affine": baselines.slope}.get(method)
        curve = np.sign(scale) * raw_frc if scale else judge.frc(Transformed(image))
        return judge.score(image, curve), curve

    methods = (DENOISED, *baselines.filters)
    with ThreadPoolExecutor(threads) as pool:
        found = dict(zip(methods, pool.map(measured, methods), strict=True))
    return TruthReport(
        {method: score for method, (score, _) in found.items()},
        baselines.gaussian.sigma_px,
        judge.frequency,
        {method: curve for method, (_, curve) in found.items()},
        baselines.gaussian,
    )


def check_agreement(
    raw: tuple[Image, Image], denoised: tuple[Image | None, Image | None], truth: Image, report: HalvesReport
) -> Agreement:
    """Compare the error estimated from the halves with the true error of the same images."""
    slope, _ = best_affine(truth, 0.5 * (np.asarray(raw[0], np.float64) + raw[1]))
    errors = []
    for direction in report.directions:
        image = denoised[0 if direction == "even" else 1]
        assert image is not None
        errors.append(float(np.var(np.asarray(image, np.float64) - slope * np.asarray(truth, np.float64))))
    return Agreement(report.scores[DENOISED].error, float(np.mean(errors)))


def score_noise(
    raw: Image | Transformed,
    other: Image | Transformed,
    denoised: Image,
    denoise: Callable[[Image], Image],
    *,
    other_is_truth: bool,
    gaussian: AffineBlur | None = None,
) -> tuple[dict[str, Hallucination], Image]:
    """Apply a denoiser, and the best Gaussian, to pure noise with the spectrum of the noise in `raw`.

    Parameters
    ----------
    raw, other
        A noisy image and its truth, or one half and the other.
    denoised
        `raw` after the denoiser.
    denoise
        The denoiser.
    other_is_truth
        Whether `other` is the truth, and not the other half.
    gaussian
        The best Gaussian that brings `raw` close to `other`; None: it is fitted.

    Returns
    -------
    tuple
        The measurement of each method, and the noise after the denoiser.
    """
    raw, other = Transformed.of(raw), Transformed.of(other)
    rings = Rings.of(raw.shape)
    power = noise_spectrum(raw, other, rings, other_is_truth=other_is_truth)
    noise = synthesize_noise(power, rings, mean=float(raw.image.mean(dtype=np.float64)), seed=0)
    blur = gaussian or fit_gaussian(raw, other)
    found, output = hallucinate(noise, denoise, denoised=denoised)
    plain, _ = hallucinate(noise, blur, denoised=blur(raw))
    return {DENOISED: found, "gaussian": plain}, output


def _decibel(ratio: Any) -> float:
    value = float(ratio)
    return float(10 * np.log10(value)) if value > 0 else float("nan")
