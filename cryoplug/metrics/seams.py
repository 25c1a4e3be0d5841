"""Are the borders of tiles visible? Steps across them are compared with steps beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cryoplug.errors import UsageError
from cryoplug.metrics.pixel import Image

_BESIDE = (2, 3, 4, 5)
"""Distances of lines, on both sides of a border, that show the usual size of a step."""


def seam_ratio(image: Image, rows: Sequence[int], columns: Sequence[int]) -> float:
    """Return the mean square of the steps across tile borders over that of the steps close beside them.

    Parameters
    ----------
    image
        ``(y, x)``, denoised.
    rows, columns
        First row, or column, of every tile; a border lies between it and the one before. Those at the image's own
        border do not count, nor do those that leave no line beside them.

    Returns
    -------
    float
        About 1 if no seam is visible; NaN if there is no border.
    """
    pixels = np.asarray(image, np.float64)
    sums = np.zeros(4)
    for axis, borders in ((0, rows), (1, columns)):
        if any(border < 0 or border > pixels.shape[axis] for border in borders):
            raise UsageError(f"tile borders {list(borders)}; allowed: 0 to {pixels.shape[axis]}, the side of the image")
        # Step k lies between lines k and k + 1.
        steps = np.square(np.diff(pixels, axis=axis)).mean(axis=1 - axis)
        across = sorted({border - 1 for border in borders if 0 < border < pixels.shape[axis]})
        near = {at + sign * distance for at in across for distance in _BESIDE for sign in (-1, 1)}
        beside = sorted(at for at in near if 0 <= at < len(steps) and at not in across)
        if across and beside:
            sums += steps[across].sum(), len(across), steps[beside].sum(), len(beside)
    if not sums[1] or sums[2] <= 0:
        return float("nan")
    return float((sums[0] / sums[1]) / (sums[2] / sums[3]))
