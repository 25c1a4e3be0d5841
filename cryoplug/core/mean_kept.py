"""A denoised micrograph keeps its mean: by how much a network moved it, and when that is undone."""

from __future__ import annotations

import math
from typing import Protocol

TOLERATED = 0.05
"""Standard deviations of the micrograph. A result keeps its units when its mean is within 0.1 of them of the raw mean."""
WORTH_TELLING = 1.0
"""Standard deviations by which a network that suits the data does not move the mean."""


class Moments(Protocol):
    """What is known of the pixels of an image."""

    @property
    def mean(self) -> float:
        """Their mean."""

    @property
    def std(self) -> float:
        """Their standard deviation."""


def mean_shift(seen: Moments | None, made_mean: float) -> float:
    """Give what is to be added to the output of a network, in grey values.

    Parameters
    ----------
    seen
        Of the pixels that the network saw; None: its output is left as it is.
    made_mean
        Mean of its output, on the same grid.

    Returns
    -------
    float
        0 when the network kept the mean to `TOLERATED`, or a number is not finite: then nothing is touched.
    """
    if seen is None:
        return 0.0
    shift = seen.mean - made_mean
    if not (math.isfinite(shift) and math.isfinite(seen.std)) or abs(shift) <= TOLERATED * seen.std:
        return 0.0
    return shift


def shift_remark(shift: float, sigma: float) -> str:
    """Say that a network moved the mean far, in grey values and beside the deviation of what it saw; empty when not."""
    if not abs(shift) > WORTH_TELLING * sigma > 0:
        return ""
    return (
        f"the network moved the mean by {abs(shift) / sigma:.3g} standard deviations of the micrograph, and cryoplug moved it "
        "back; it was trained on another grey scale: train one on such data"
    )
