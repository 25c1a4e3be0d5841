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
    halves_moments,
    mean_moments,
    ring_moments,
)
from cryoplug.metrics.linear import Baselines, fit_baselines
from cryoplug.metrics.pixel import Image, best_affine
from cryoplug.metrics.rings import Curve, Rings, spectrum
from cryoplug.metrics.truth import TruthScore, score_truth, truth_frc

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
    raw: tuple[Image, Image],
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
    rings = Rings.of((raw[0].shape[0], raw[0].shape[1]))
    ratio = noise_ratio(*raw)
    known = [spectrum(half, taper=True) for half in raw]
    orders = {direction: (0, 1) if direction == "even" else (1, 0) for direction in directions}
    for direction, (own, _) in orders.items():
        if denoised[own] is None:
            raise UsageError(f"direction {direction}: its denoised half is not at hand")

    def fitted(direction: str) -> Baselines:
        own, other = orders[direction]
        return fit_baselines(raw[own], raw[other], judge_is_truth=False)

    def measured(direction: str, method: str) -> tuple[HalvesMoments, HalvesMoments]:
        own, other = orders[direction]
        if method == DENOISED:
            made, its_other = denoised[own], denoised[other]
        else:
            apply = baselines[direction].filters[method]
            made, its_other = apply(raw[own]), apply(raw[other]) if equally_noisy(ratio) else None
        assert made is not None
        images = HalfImages(raw[own], raw[other], made, its_other if equally_noisy(ratio) else None)
        return halves_moments(images), ring_moments(images, rings, known=(known[own], known[other]))

    with ThreadPoolExecutor(threads) as pool:
        baselines = dict(zip(directions, pool.map(fitted, directions), strict=True))
        methods = (DENOISED, *baselines[directions[0]].filters)
        found = {method: list(pool.map(measured, directions, [method] * len(directions))) for method in methods}
    means = {method: mean_moments([whole for whole, _ in items]) for method, items in found.items()}
    return HalvesReport(
        directions=tuple(directions),
        signal=float(means[DENOISED].signal),
        raw_correlation=float(means[DENOISED].raw_correlation),
        noise_ratio=ratio,
        gaussian_sigma_px=float(np.mean([fit.gaussian_sigma_px for fit in baselines.values()])),
        scores={method: HalvesScore.of(moments) for method, moments in means.items()},
        frequency=rings.frequency,
        count=rings.count,
        rings={method: mean_moments([curves for _, curves in items]) for method, items in found.items()},
    )


def score_against_truth(noisy: Image, truth: Image, denoised: Image, *, threads: int = 1) -> TruthReport:
    """Judge a denoiser and the baselines by the truth; all ``(y, x)`` and of equal shape; `threads` share the methods."""
    baselines = fit_baselines(noisy, truth, judge_is_truth=True)

    def measured(method: str) -> tuple[TruthScore, Curve, Curve]:
        image = denoised if method == DENOISED else baselines.filters[method](noisy)
        frequency, curve = truth_frc(image, truth)
        return score_truth(image, truth, frc=(frequency, curve)), frequency, curve

    methods = (DENOISED, *baselines.filters)
    with ThreadPoolExecutor(threads) as pool:
        found = dict(zip(methods, pool.map(measured, methods), strict=True))
    return TruthReport(
        {method: score for method, (score, _, _) in found.items()},
        baselines.gaussian_sigma_px,
        found[DENOISED][1],
        {method: curve for method, (_, _, curve) in found.items()},
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
    raw: Image, other: Image, denoised: Image, denoise: Callable[[Image], Image], *, other_is_truth: bool
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

    Returns
    -------
    tuple
        The measurement of each method, and the noise after the denoiser.
    """
    rings = Rings.of((raw.shape[0], raw.shape[1]))
    power = noise_spectrum(raw, other, rings, other_is_truth=other_is_truth)
    noise = synthesize_noise(power, rings, mean=float(raw.mean(dtype=np.float64)), seed=0)
    blur = fit_baselines(raw, other, judge_is_truth=other_is_truth).filters["gaussian"]
    found, output = hallucinate(noise, denoise, denoised=denoised)
    plain, _ = hallucinate(noise, blur, denoised=blur(raw))
    return {DENOISED: found, "gaussian": plain}, output


def _decibel(ratio: Any) -> float:
    value = float(ratio)
    return float(10 * np.log10(value)) if value > 0 else float("nan")
