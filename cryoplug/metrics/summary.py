"""Means over micrographs with their standard errors, and paired differences between two methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIGNIFICANT = 2.0
"""Standard errors by which the mean of paired differences must exceed 0 to count."""


@dataclass(frozen=True)
class Mean:
    """A mean over micrographs."""

    mean: float
    """The mean; NaN without a finite value."""
    standard_error: float
    """Standard deviation (n - 1) over the root of n; NaN for fewer than two values."""
    count: int
    """Number of finite values."""


@dataclass(frozen=True)
class Requirement:
    """Whether a denoiser is better than a baseline on the same micrographs."""

    than: str
    """The baseline."""
    measure: str
    """``snr_db``: difference of the signal-to-noise by the truth, in decibel. ``correlation``: relative difference of the
    correlation with the other half."""
    difference: Mean
    """Mean of the paired differences; above 0 the denoiser is better."""
    met: bool
    """Whether the mean is above 0 by two standard errors; with a single micrograph, whether it is above 0."""


def mean_of(values: Sequence[float]) -> Mean:
    """Average the finite values."""
    known = np.array([value for value in values if math.isfinite(value)], np.float64)
    if not known.size:
        return Mean(math.nan, math.nan, 0)
    error = float(known.std(ddof=1) / math.sqrt(known.size)) if known.size > 1 else math.nan
    return Mean(float(known.mean()), error, int(known.size))


def require_better(than: str, measure: str, pairs: Sequence[tuple[float, float]]) -> Requirement:
    """Compare a denoiser with a baseline.

    Parameters
    ----------
    than, measure
        See `Requirement`.
    pairs
        The denoiser's value and the baseline's, for each micrograph. A value that is not finite (as for a constant output)
        counts against the denoiser.
    """
    relative = measure == "correlation"
    differences = [(one / two - 1 if relative and two > 0 else one - two) for one, two in pairs]
    difference = mean_of(differences)
    complete = difference.count == len(pairs) > 0
    margin = 0.0 if len(pairs) == 1 else SIGNIFICANT * difference.standard_error
    return Requirement(than, measure, difference, complete and difference.mean > margin)
