"""Find hot and dead pixels, and the values that replace them for the network.

A hot pixel lies far beyond the grey values of its micrograph and is unlike its neighbours. Ice balls, gold and carbon lie
beyond them too, but as a whole: their pixels have neighbours of their kind, and are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from cryoplug.core.micrograph import ImageF32

SIGMAS = 10.0
"""A pixel is hot if it is farther from both medians (micrograph, neighbourhood) than this many robust standard deviations."""
REACH_PX = 3
"""Reach of a neighbourhood in each direction, in pixels: it has 7 x 7."""
MOST_IN_CLUMP = 9
"""Most pixels beyond the limits in a neighbourhood: up to 3 x 3 are a hot clump, more are an object in the ice."""
QUANTILES_OF_LIMITS = (0.1587, 0.5, 0.8413)
"""Quantiles of a normal distribution one standard deviation below the mean, at the mean, and one above."""
MOST_EXAMINED = 1 << 15
"""Neighbourhoods to examine at a time: 6 MB."""

ReadRows = Callable[[int, int], ImageF32]


@dataclass(frozen=True)
class GreyLimits:
    """The range of grey values of a micrograph, without hot pixels and objects in the ice."""

    low: float
    """Smallest ordinary grey value."""
    high: float
    """Largest ordinary grey value."""
    sigma: float
    """Robust standard deviation, in grey values."""


@dataclass(frozen=True, eq=False)
class HotPixels:
    """The hot pixels of one micrograph, in reading order."""

    y: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Row of each hot pixel."""
    x: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Column of each hot pixel."""
    values: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    """The replacement for each: the median of the sound pixels around it."""

    def __len__(self) -> int:
        return len(self.y)

    @property
    def remark(self) -> str:
        """The remark for the user; empty if no pixel is hot."""
        return hot_pixel_remark(len(self))

    def repair(self, rows: ImageF32, start: int) -> None:
        """Replace the hot pixels in some rows of the micrograph; the first of these is row `start`."""
        first, last = np.searchsorted(self.y, (start, start + len(rows)))
        rows[self.y[first:last] - start, self.x[first:last]] = self.values[first:last]


def hot_pixel_remark(count: int) -> str:
    """Give the remark on some replaced hot pixels; empty if there is none."""
    if not count:
        return ""
    return f"{count} {'hot pixel was' if count == 1 else 'hot pixels were'} replaced by the median of the neighbours"


def grey_limits(rows: np.ndarray) -> GreyLimits | None:
    """Measure median and deviation of a micrograph by some of its rows.

    Parameters
    ----------
    rows
        Pixels of `sampled_rows`.

    Returns
    -------
    GreyLimits | None
        None if no pixel can stand out: most pixels are equal, as in a frame of very few counts, or no pixel is finite.
    """
    pixels = rows[np.isfinite(rows)]
    if not pixels.size:
        return None
    ranks = ranks_of_limits(pixels.size)
    return limits_between(*np.partition(pixels, sorted(set(ranks)))[ranks])


def limits_of_sorted(ascending: np.ndarray) -> GreyLimits | None:
    """Do what `grey_limits` does, with finite pixels that are already sorted."""
    if not ascending.size:
        return None
    return limits_between(*ascending[ranks_of_limits(ascending.size)])


def ranks_of_limits(count: int) -> list[int]:
    """Give the ranks, among `count` finite pixels in ascending order, of the three pixels that `limits_between` needs."""
    return [round(part * (count - 1)) for part in QUANTILES_OF_LIMITS]


def limits_between(below: float, median: float, above: float) -> GreyLimits | None:
    """Compute the limits from three pixels (see `ranks_of_limits`); None as in `grey_limits`."""
    sigma = (float(above) - float(below)) / 2
    if not sigma > 0:
        return None
    return GreyLimits(float(median) - SIGMAS * sigma, float(median) + SIGMAS * sigma, sigma)


def find_hot_pixels(
    read_rows: ReadRows, shape: tuple[int, int], bands: Iterable[tuple[int, ImageF32]], limits: GreyLimits | None
) -> HotPixels:
    """Find the hot pixels of a micrograph.

    Parameters
    ----------
    read_rows
        Called with the first row and one past the last, to read the rows around a candidate.
    shape
        ``(y, x)``.
    bands
        Pairs of first row number and rows; bands where no pixel can be beyond the limits may be left out.
    limits
        From `grey_limits`; None finds nothing.
    """
    finder = HotPixelFinder(read_rows, shape, limits)
    for start, rows in bands:
        finder.add(start, rows)
    return finder.hot()


class HotPixelFinder:
    """Finds hot pixels while the rows of a micrograph pass by; parameters as for `find_hot_pixels`."""

    def __init__(self, read_rows: ReadRows, shape: tuple[int, int], limits: GreyLimits | None) -> None:
        self._read_rows, self._height, self._limits = read_rows, shape[0], limits
        self._found: list[HotPixels] = []

    def add(self, start: int, rows: ImageF32) -> HotPixels:
        """Give the hot pixels of some rows, the first of which is row `start`; the rows are not changed."""
        found = self._look(start, rows) or HotPixels()
        if len(found):
            self._found.append(found)
        return found

    def _look(self, start: int, rows: ImageF32) -> HotPixels | None:
        limits = self._limits
        if limits is None:
            return None
        with np.errstate(invalid="ignore"):
            if rows.max() <= np.float32(limits.high) and rows.min() >= np.float32(limits.low):
                return None
        candidates = np.flatnonzero(_beyond(rows, limits).any(axis=1))
        if not candidates.size:
            return None
        first, last = start + int(candidates[0]), start + int(candidates[-1]) + 1
        above, below = max(0, first - REACH_PX), min(self._height, last + REACH_PX)
        inside = start <= above and below <= start + len(rows)
        around = rows[above - start : below - start] if inside else self._read_rows(above, below)
        return HotPixels(*_examined(around, first - above, last - above, limits, at=above))

    def hot(self) -> HotPixels:
        """Give all hot pixels found so far."""
        if not self._found:
            return HotPixels()
        y, x, values = zip(*((part.y, part.x, part.values) for part in self._found), strict=True)
        return HotPixels(np.concatenate(y), np.concatenate(x), np.concatenate(values))


def bands_to_search(read_rows: ReadRows, shape: tuple[int, int]) -> Iterator[tuple[int, ImageF32]]:
    """Read a micrograph for `find_hot_pixels`."""
    # 1 MB each, as elsewhere: what is compared is still in the processor's cache then.
    step = max(4 * REACH_PX, (1 << 18) // shape[1])
    for start in range(0, shape[0], step):
        yield start, read_rows(start, min(start + step, shape[0]))


def _beyond(rows: np.ndarray, limits: GreyLimits) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (rows > np.float32(limits.high)) | (rows < np.float32(limits.low))


def _examined(
    rows: ImageF32, first: int, last: int, limits: GreyLimits, *, at: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give row, column and new value of the hot pixels in rows `first` to `last` - 1; the other rows are only neighbours."""
    beyond = np.pad(_beyond(rows, limits), REACH_PX)
    height, width = rows.shape
    # Things in the ice are dismissed here, as a whole: a large one has a million pixels beyond the limits.
    lone = beyond[REACH_PX:-REACH_PX, REACH_PX:-REACH_PX] & (_counts_around(beyond) <= MOST_IN_CLUMP)
    lone[:first] = False
    lone[last:] = False
    y, x = np.nonzero(lone)
    steps = np.arange(-REACH_PX, REACH_PX + 1)
    hot = np.zeros(len(y), bool)
    values = np.empty(len(y), np.float32)
    for begin in range(0, len(y), MOST_EXAMINED):
        part = slice(begin, begin + MOST_EXAMINED)
        window = y[part, None, None] + steps[:, None], x[part, None, None] + steps[None]
        outside = beyond[window[0] + REACH_PX, window[1] + REACH_PX]
        outside |= (window[0] < 0) | (window[0] >= height) | (window[1] < 0) | (window[1] >= width)
        around = rows[np.clip(window[0], 0, height - 1), np.clip(window[1], 0, width - 1)]
        hot[part], values[part] = _judged(rows[y[part], x[part]], around, outside, limits)
    return y[hot] + at, x[hot], values[hot]


def hot_among(y: np.ndarray, x: np.ndarray, around: ImageF32, shape: tuple[int, int], limits: GreyLimits) -> HotPixels:
    """Give the hot pixels among some that lie beyond the limits, where their neighbourhoods were read one by one.

    Parameters
    ----------
    y, x
        Where these pixels are, in reading order.
    around
        Their neighbourhoods, ``(n, 7, 7)``; what lies outside of the image may be anything. It is changed.
    shape
        Of the image, ``(y, x)``.
    limits
        From `grey_limits`.
    """
    steps = np.arange(-REACH_PX, REACH_PX + 1)
    rows, columns = y[:, None, None] + steps[:, None], x[:, None, None] + steps
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    beyond = _beyond(around, limits) & inside
    lone = beyond.sum(axis=(1, 2)) <= MOST_IN_CLUMP
    y, x, around, outside = y[lone], x[lone], around[lone], (beyond | ~inside)[lone]
    hot, values = _judged(around[:, REACH_PX, REACH_PX].copy(), around, outside, limits)
    return HotPixels(y[hot], x[hot], values[hot])


def _judged(own: ImageF32, around: ImageF32, outside: np.ndarray, limits: GreyLimits) -> tuple[np.ndarray, np.ndarray]:
    """Tell which pixels are hot, and what is seen in their place, by their neighbourhoods ``(n, 7, 7)``, which are changed."""
    around[outside] = np.nan
    flat = around.reshape(len(own), (2 * REACH_PX + 1) ** 2)
    median = _median_of_finite(flat)
    sigma = 1.4826 * _median_of_finite(np.abs(flat - median[:, None]))
    # Comparing with NaN says no: nothing is hot that is not finite, or has no sound neighbour.
    with np.errstate(invalid="ignore"):
        return (np.abs(own - median) > SIGMAS * np.maximum(sigma, limits.sigma)) & np.isfinite(own), median


def _counts_around(marked: np.ndarray) -> np.ndarray:
    """Count the marked pixels in each 7 x 7 neighbourhood; the map has `REACH_PX` more rows and columns on each side."""
    counts = _sums_of_seven(_sums_of_seven(marked.view(np.uint8)).T)
    return counts.T


def _sums_of_seven(rows: np.ndarray) -> np.ndarray:
    """Add up each row and the six that follow it, as 4 + 2 + 1: four passes instead of six."""
    two = rows[:-1] + rows[1:]
    four = two[:-2] + two[2:]
    return four[:-3] + two[4:-1] + rows[6:]


def _median_of_finite(rows: np.ndarray) -> np.ndarray:
    """Give the lower median of the finite values of each row, else NaN. numpy's own function takes 20 times as long."""
    ascending = np.sort(np.where(np.isfinite(rows), rows, np.float32(np.nan)), axis=1)
    count = np.isfinite(ascending).sum(axis=1)
    return ascending[np.arange(len(ascending)), np.maximum(count - 1, 0) // 2]
