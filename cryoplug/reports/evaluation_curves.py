"""The curves of an evaluation over the spatial frequency, averaged over micrographs; drawn as PNG and as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryoplug.metrics.evaluation import HalvesReport, TruthReport
from cryoplug.metrics.halves import HalvesMoments, mean_moments
from cryoplug.metrics.rings import Curve

_SMOOTHING = 5
"""Rings to average for a drawn curve, because single rings scatter more than the curves differ."""
_BEYOND_CHANCE = 3.0
"""A curve is drawn only where the signal, or the error, is this many standard errors of the signal above 0."""


@dataclass(frozen=True, eq=False)
class HalvesCurves:
    """Figures by halves in each ring, without truth; NaN where chance alone could explain a value."""

    frequency: Curve
    """Frequencies in cycles per pixel, up to 0.5."""
    known: dict[str, Curve]
    """For each method, the correlation with the unknown truth: FRC(De, Ro) / sqrt(FRC(Re, Ro))."""
    error: dict[str, Curve]
    """For each method, bias and noise together: B + N."""
    signal: Curve
    """Variance of the signal."""


def truth_curves(reports: Sequence[TruthReport]) -> tuple[Curve, dict[str, Curve]]:
    """Give frequencies, and each method's FRC with the truth, averaged over micrographs that have the first one's shape."""
    alike = [item for item in reports if item.frequency.shape == reports[0].frequency.shape]
    curves = {method: _smooth(np.mean([item.frc[method] for item in alike], axis=0)) for method in alike[0].frc}
    return alike[0].frequency, curves


def halves_curves(reports: Sequence[HalvesReport]) -> HalvesCurves:
    """Average over all micrographs that have the shape of the first one."""
    alike = [item for item in reports if item.frequency.shape == reports[0].frequency.shape]
    shown = slice(1, int(np.searchsorted(alike[0].frequency, 0.5 + 1e-9)))
    frequency = alike[0].frequency[shown]
    terms = len(alike) * _smooth(np.asarray(alike[0].count, float)[shown]) * _smoothing(len(frequency))
    known, errors = {}, {}
    drawn = np.full(len(frequency), np.nan)
    for method in alike[0].rings:
        smooth = _smoothed(mean_moments([item.rings[method] for item in alike]), shown)
        chance = _BEYOND_CHANCE * np.sqrt(smooth.input_variance * smooth.judge_variance / terms)
        signal, error = np.asarray(smooth.signal), np.asarray(smooth.error)
        known[method] = np.where(signal > chance, smooth.truth_correlation, np.nan)
        errors[method] = np.where(error > chance, error, np.nan)
        drawn = np.where(signal > chance, signal, np.nan)
    return HalvesCurves(frequency, known, errors, drawn)


def _smoothed(moments: HalvesMoments, shown: slice) -> HalvesMoments:
    # Variances are averaged, not ratios: a ratio of two small numbers has no mean.
    return HalvesMoments(**{name: _smooth(np.asarray(value)[shown]) for name, value in vars(moments).items()})


def _smooth(curve: Curve) -> Curve:
    kernel = np.ones(_smoothing(len(curve)))
    return np.convolve(curve, kernel, "same") / np.convolve(np.ones(len(curve)), kernel, "same")


def _smoothing(rings: int) -> int:
    return _SMOOTHING if rings >= 8 * _SMOOTHING else 1
