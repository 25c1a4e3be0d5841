"""Which normalization suits the grey values of a micrograph, and the warning if ``percentile`` does not suit them.

``percentile`` divides by the 95th percentile of the positive pixels and clips to [0, 1], as the founding program does. That
suits counts from zero up. If pixels lie around zero, it clips half of them. If a large number was added to all pixels,
hardly any contrast is left, and the noise that ``convert --pairs noise`` adds hides the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cryoplug.core.normalization import Normalization
from cryoplug.core.quantiles import quantiles_of_sorted, sorted_finite

CLIPPED_WARNING = 0.2
"""Clipped part of the pixels above which cryoplug warns. An ordinary micrograph has 0.05; beyond 0.2 little is left to see."""
LEAST_SPREAD = 0.02
"""Least standard deviation, over the 95th percentile, of counts: they have 0.13 at 50 electrons a pixel, 0.03 at 1000. The
noise that is added to clean patches has 0.07."""
MOST_NEGATIVE = 0.01
"""Largest part of negative pixels in counts; interpolation of shifted frames makes a few."""


@dataclass(frozen=True)
class GreyScale:
    """What a few rows of a micrograph show about its grey values."""

    negative: float
    """Part of the pixels below zero, in [0, 1]."""
    spread: float
    """Standard deviation over the 95th percentile of the positive pixels; 0 where none is positive."""

    @property
    def counts_from_zero(self) -> bool:
        """Whether the grey values are counts from zero up, for which ``percentile`` was made."""
        return self.negative <= MOST_NEGATIVE and self.spread >= LEAST_SPREAD

    @property
    def words(self) -> str:
        """The grey values in words, for messages."""
        if self.counts_from_zero:
            return "counts from zero up"
        if self.negative > MOST_NEGATIVE:
            return f"{100 * self.negative:.0f} % of the pixels are below zero"
        return f"the standard deviation is {self.spread:.2g} of the 95th percentile: far from zero"


def measure_grey_scale(pixels: np.ndarray) -> GreyScale | None:
    """Look at some pixels of a micrograph, any shape; None where fewer than two are finite."""
    return grey_scale_of_sorted(sorted_finite(pixels))


def grey_scale_of_sorted(ascending: np.ndarray) -> GreyScale | None:
    """Tell what `measure_grey_scale` does by finite pixels that are sorted already."""
    if ascending.size < 2:
        return None
    below, up_to_zero = np.searchsorted(ascending, 0.0, side="left"), np.searchsorted(ascending, 0.0, side="right")
    positive = ascending[up_to_zero:]
    # A hot pixel must not decide what the spread is.
    low, high = quantiles_of_sorted(ascending, (0.001, 0.999))
    (top,) = quantiles_of_sorted(positive, (0.95,)) if positive.size else (math.inf,)
    spread = float(np.clip(ascending.astype(np.float64), low, high).std())
    return GreyScale(float(below / ascending.size), spread / top)


def normalization_remark(normalization: Normalization, *, clipped: float, sigma: float) -> str:
    """Warn if a normalization does not suit a micrograph; see `percentile_remark`.

    Parameters
    ----------
    normalization
        The normalization fitted to the micrograph.
    clipped
        Part of the pixels that the normalization clips, in [0, 1].
    sigma
        Standard deviation of the micrograph.
    """
    return percentile_remark(clipped, sigma / normalization.scale) if normalization.kind == "percentile" else ""


def percentile_remark(clipped: float, spread: float) -> str:
    """Warn if ``percentile`` does not suit the grey values; the same words in every command.

    Parameters
    ----------
    clipped
        Part of the pixels that the normalization clips, in [0, 1].
    spread
        Standard deviation of the pixels, divided by their 95th percentile.

    Returns
    -------
    str
        The warning; empty if ``percentile`` suits them.
    """
    if clipped > CLIPPED_WARNING:
        found = f"clips {100 * clipped:.0f} % of the pixels, and they are lost"
    elif spread < LEAST_SPREAD:
        found = f"leaves a standard deviation of {spread:.2g} of 1, less than the noise that --pairs noise adds (0.07)"
    else:
        return ""
    return (
        f"percentile normalization {found}: the grey values are not counts from zero up; use convert --normalize zscore, and a "
        "checkpoint trained on that store"
    )
