"""A denoised micrograph keeps its mean: how far a network moved it, and when cryoplug moves it back."""

from __future__ import annotations

import math
from typing import Protocol

TOLERATED = 0.05
"""Shift of the mean that is left alone, in standard deviations of the micrograph. (Units count as kept up to 0.1.)"""
WORTH_TELLING = 1.0
"""Shift of the mean, in standard deviations, from which the user is warned: a network that suits the data stays below."""


class Moments(Protocol):
    """Anything that knows the mean and the standard deviation of an image."""

    @property
    def mean(self) -> float:
        """Mean of the pixels."""

    @property
    def std(self) -> float:
        """Standard deviation of the pixels."""


def mean_shift(seen: Moments | None, made_mean: float) -> float:
    """Give the number to add to the output of a network so that the mean is kept, in grey values.

    Parameters
    ----------
    seen
        Moments of the pixels that the network saw; None leaves its output as it is.
    made_mean
        Mean of its output, on the same grid.

    Returns
    -------
    float
        0 if the network kept the mean to within `TOLERATED`, or if a number is not finite.
    """
    if seen is None:
        return 0.0
    shift = seen.mean - made_mean
    if not (math.isfinite(shift) and math.isfinite(seen.std)) or abs(shift) <= TOLERATED * seen.std:
        return 0.0
    return shift


def shift_remark(shift: float, sigma: float) -> str:
    """Warn if a network moved the mean far, compared with the standard deviation of the micrograph; else empty."""
    if not abs(shift) > WORTH_TELLING * sigma > 0:
        return ""
    return (
        f"the network moved the mean by {abs(shift) / sigma:.3g} standard deviations of the micrograph, and cryoplug moved it "
        "back; it was trained too little, or on another grey scale; train longer, on such data"
    )
