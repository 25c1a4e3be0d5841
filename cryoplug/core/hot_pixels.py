"""Find hot and dead pixels, and give what a network is to see in their place.

A hot pixel lies far beyond the grey values of its micrograph and is unlike its neighbours. Ice balls, gold and carbon lie
beyond them too, but as a whole: their pixels have neighbours of their kind, and are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cryoplug.core.micrograph import ImageF32, MicrographSource
from cryoplug.core.sampled_rows import read_sampled_rows, sampled_rows

SIGMAS = 10.0
"""Robust standard deviations from the median, of the micrograph and of the neighbourhood, beyond which a pixel is hot."""
REACH_PX = 3
"""A neighbourhood goes so far in each direction: 7 x 7 pixels."""
MOST_IN_CLUMP = 9
"""Pixels beyond the limits in a neighbourhood: up to 3 x 3 of them are a hot clump, more are a thing in the ice."""
_QUANTILES = (0.1587, 0.5, 0.8413)
"""Of a normal distribution: a standard deviation below the mean, the mean, and as much above."""
_MOST_EXAMINED = 1 << 15
"""Neighbourhoods that are looked at at a time: 6 MB."""

ReadRows = Callable[[int, int], ImageF32]


@dataclass(frozen=True)
class GreyLimits:
    """Between what grey values the pixels of a micrograph lie, those of hot pixels and of things in the ice left out."""

    low: float
    """Smallest."""
    high: float
    """Largest."""
    sigma: float
    """Robust standard deviation."""


@dataclass(frozen=True, eq=False)
class HotPixels:
    """The hot pixels of one micrograph, in reading order."""

    y: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Rows."""
    x: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Columns."""
    values: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    """What is seen in their place: the median of the sound pixels around."""

    def __len__(self) -> int:
        return len(self.y)

    @property
    def remark(self) -> str:
        """What the user should know; empty without any."""
        if not len(self):
            return ""
        word = "hot pixel was" if len(self) == 1 else "hot pixels were"
        return f"{len(self)} {word} replaced by the median of the neighbours"

    def repair(self, rows: ImageF32, start: int) -> None:
        """Put the values into rows of the micrograph, of which the first has the number `start`."""
        first, last = np.searchsorted(self.y, (start, start + len(rows)))
        rows[self.y[first:last] - start, self.x[first:last]] = self.values[first:last]


def grey_limits(rows: np.ndarray) -> GreyLimits | None:
    """Measure median and deviation of a micrograph by some of its rows.

    Parameters
    ----------
    rows
        Pixels of `sampled_rows`.

    Returns
    -------
    GreyLimits | None
        None where nothing can stand out: most of the pixels are equal, as in a frame of very few counts, or none is finite.
    """
    pixels = rows[np.isfinite(rows)]
    if not pixels.size:
        return None
    ranks = ranks_of_limits(pixels.size)
    return limits_between(*np.partition(pixels, sorted(set(ranks)))[ranks])


def limits_of_sorted(ascending: np.ndarray) -> GreyLimits | None:
    """Measure what `grey_limits` does by finite pixels that are sorted already."""
    if not ascending.size:
        return None
    return limits_between(*ascending[ranks_of_limits(ascending.size)])


def ranks_of_limits(count: int) -> list[int]:
    """Give which of so many finite pixels, in ascending order, `limits_between` is to be told."""
    return [round(part * (count - 1)) for part in _QUANTILES]


def limits_between(below: float, median: float, above: float) -> GreyLimits | None:
    """Give the limits by three pixels; see `ranks_of_limits`, and `grey_limits` for when there are none."""
    sigma = (float(above) - float(below)) / 2
    if not sigma > 0:
        return None
    return GreyLimits(float(median) - SIGMAS * sigma, float(median) + SIGMAS * sigma, sigma)


def find_hot_pixels(
    read_rows: ReadRows, shape: tuple[int, int], bands: Iterable[tuple[int, ImageF32]], limits: GreyLimits | None
) -> HotPixels:
    """Look through a micrograph for hot pixels.

    Parameters
    ----------
    read_rows
        Called with the first row and one past the last, for the rows around a candidate.
    shape
        ``(y, x)``.
    bands
        Number of the first row, and rows; those where no pixel can be beyond the limits may be left out.
    limits
        From `grey_limits`; None: there are none.
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
        """Give the hot pixels of rows, of which the first has the number `start`; they are not changed."""
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
        """Give all that were found."""
        if not self._found:
            return HotPixels()
        y, x, values = zip(*((part.y, part.x, part.values) for part in self._found), strict=True)
        return HotPixels(np.concatenate(y), np.concatenate(x), np.concatenate(values))


class RepairedMicrograph(MicrographSource):
    """A micrograph without its hot pixels; found when it is made, which reads it once, unless they are known.

    Parameters
    ----------
    source
        The opened micrograph; closed together with this one.
    hot
        Its hot pixels; None: not known.
    """

    def __init__(self, source: MicrographSource, hot: HotPixels | None = None) -> None:
        self._source = source
        self.path: Path = source.path
        self.shape, self.dtype = source.shape, source.dtype
        self.pixel_size_angstrom, self.warnings = source.pixel_size_angstrom, source.warnings
        if hot is None:
            limits = grey_limits(read_sampled_rows(source))
            hot = find_hot_pixels(source.read_rows, source.shape, _bands(source.read_rows, source.shape), limits)
        self.hot = hot
        """What was found."""

    def read_rows(self, start: int, stop: int) -> ImageF32:
        """Read rows; hot pixels have the median of their neighbours."""
        rows = self._source.read_rows(start, stop)
        self.hot.repair(rows, start)
        return rows

    def close(self) -> None:
        """Close the micrograph."""
        self._source.close()


def repaired_image(pixels: np.ndarray) -> tuple[ImageF32, HotPixels]:
    """Give a copy of an image ``(y, x)`` without its hot pixels, and what they were."""
    result = np.array(pixels, np.float32, order="C")

    def read(start: int, stop: int) -> ImageF32:
        return result[start:stop]

    shape = result.shape[0], result.shape[1]
    hot = find_hot_pixels(read, shape, _bands(read, shape), grey_limits(result[sampled_rows(len(result))]))
    hot.repair(result, 0)
    return result, hot


def _bands(read_rows: ReadRows, shape: tuple[int, int]) -> Iterator[tuple[int, ImageF32]]:
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
    """Give row, column and new value of the hot pixels among rows `first` to `last` - 1; the rest are neighbours."""
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
    for begin in range(0, len(y), _MOST_EXAMINED):
        part = slice(begin, begin + _MOST_EXAMINED)
        window = y[part, None, None] + steps[:, None], x[part, None, None] + steps[None]
        outside = beyond[window[0] + REACH_PX, window[1] + REACH_PX]
        outside |= (window[0] < 0) | (window[0] >= height) | (window[1] < 0) | (window[1] >= width)
        around = rows[np.clip(window[0], 0, height - 1), np.clip(window[1], 0, width - 1)]
        around[outside] = np.nan
        around = around.reshape(-1, steps.size**2)
        own = rows[y[part], x[part]]
        median = _median_of_finite(around)
        sigma = 1.4826 * _median_of_finite(np.abs(around - median[:, None]))
        # Comparing with NaN says no: nothing is hot that is not finite, or has no sound neighbour.
        with np.errstate(invalid="ignore"):
            hot[part] = (np.abs(own - median) > SIGMAS * np.maximum(sigma, limits.sigma)) & np.isfinite(own)
        values[part] = median
    return y[hot] + at, x[hot], values[hot]


def _counts_around(marked: np.ndarray) -> np.ndarray:
    """Count the marked pixels of each 7 x 7 neighbourhood, itself among them, of a map with so many rows and columns around."""
    counts = _sums_of_seven(_sums_of_seven(marked.view(np.uint8)).T)
    return counts.T


def _sums_of_seven(rows: np.ndarray) -> np.ndarray:
    """Add up each row and the six that follow it: 4 + 2 + 1, in four passes where there would be six."""
    two = rows[:-1] + rows[1:]
    four = two[:-2] + two[2:]
    return four[:-3] + two[4:-1] + rows[6:]


def _median_of_finite(rows: np.ndarray) -> np.ndarray:
    """Give the lower median of the finite values of each row; NaN where there is none. numpy's own takes 20 times as long."""
    ascending = np.sort(np.where(np.isfinite(rows), rows, np.float32(np.nan)), axis=1)
    count = np.isfinite(ascending).sum(axis=1)
    return ascending[np.arange(len(ascending)), np.maximum(count - 1, 0) // 2]
