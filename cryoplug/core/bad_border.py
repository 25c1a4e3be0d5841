"""Find rows and columns at the border that detector or motion correction spoiled, and the pixels that replace them.

A bad border is straight: over at least half of a side, the pixels of whole rows or columns are too dark, too bright, too noisy
or all equal. Ice, carbon and gold are never that straight, and are left alone. So is a gradient, because each line is compared
with what the lines further inside lead to expect.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cryoplug.core.micrograph import ImageF32, MicrographSource
from cryoplug.core.sampled_rows import SAMPLED_ROWS, sampled_rows

MOST_LINES = 64
"""Most rows or columns at one side; motion correction leaves some forty where a movie drifted."""
SMALLEST_SIDE = 512
"""Smaller images are left alone: the edge of an ice ball is nearly straight over so few pixels."""
OFF = 0.8
"""A line is off if three quarters of the pixels of one half lie this many standard deviations from what is expected, all to the
same side. Noise does so once in 10^8 lines: with 32 pixels, the quartile lies 0.8 to the other side, with an error of 0.29. In
3,600 windows of twelve real micrographs, 0.49 was the most; a line that is off by 1.6 deviations is found."""
NOISIER = 3.0
"""The outermost lines are off as long as the pixels of one half have this many times the deviation of lines inside. In the same
windows, 2.5 was the most."""
CONSTANT = 0.9
"""The outermost lines are off as long as this part of their pixels are equal, if less than `ORDINARY` of those inside are."""
ORDINARY = 0.2
"""See `CONSTANT`."""
ECHO = 0.8
"""Next to a line that is off, others are replaced whose median is off by this many deviations: an earlier Fourier crop rang."""
LEAST_SPREAD = 0.1
"""The deviation counts as at least this part of that of all pixels, so that rounding is no noise."""
_SIGMAS = 1.4826
"""Standard deviations in the median distance from the median, of a normal distribution."""
_SPARSE = 4
"""One in so many pixels shows the deviation of all."""
_FITTED = 12
"""Number of lines to which a straight line is fitted, pixel by pixel; the one between them and the judged one is left out."""
_JUDGED = MOST_LINES + 10
"""Number of lines that are judged; those beyond `MOST_LINES` show the noise."""
LINES_SEEN = _JUDGED + 1 + _FITTED
"""Number of lines at each side that `judged` wants to see."""
_DRAWN_FROM = 16
"""Least number of lines beside a bad border from which its pixels are drawn."""

Lines = tuple[int, int, int, int]
"""Numbers of lines at the top, at the bottom, at the left and at the right."""

ReadRows = Callable[[int, int], ImageF32]


@dataclass(frozen=True)
class BadBorder:
    """The rows and columns of one micrograph that are replaced, counted from each side."""

    shape: tuple[int, int] = (0, 0)
    """Shape of the micrograph, ``(y, x)``."""
    top: int = 0
    """Number of rows, from row 0."""
    bottom: int = 0
    """Number of rows, from the last."""
    left: int = 0
    """Number of columns, from column 0."""
    right: int = 0
    """Number of columns, from the last."""

    def __bool__(self) -> bool:
        return any(self.lines)

    @property
    def lines(self) -> Lines:
        """Number of rows and columns to replace."""
        return self.top, self.bottom, self.left, self.right

    @property
    def words(self) -> str:
        """The lines in words, such as ``3 columns at the left``; empty if the border is sound."""
        places = (("row", "top"), ("row", "bottom"), ("column", "left"), ("column", "right"))
        found = [
            f"{count} {line}{'' if count == 1 else 's'} at the {side}"
            for count, (line, side) in zip(self.lines, places, strict=True)
            if count
        ]
        return " and ".join(filter(None, [", ".join(found[:-1]), *found[-1:]]))

    @property
    def remark(self) -> str:
        """The remark for the user; empty if the border is sound."""
        if not self:
            return ""
        was = "was" if sum(self.lines) == 1 else "were"
        return f"bad border: {self.words} {was} replaced by pixels from beside"

    def repair(self, image: np.ndarray) -> None:
        """Replace the bad border of a whole image, in place."""
        for to_y, to_x, from_y, from_x in self.replacements():
            image[to_y, to_x] = image[from_y, from_x]

    def replacements(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Say which pixels to replace by which: rows and columns to write, then rows and columns to read; they broadcast.

        A pixel is drawn from those beside the border, in its own row or column: so it has their grey level and their noise,
        and opposes no step to a Fourier crop. A mirror image would show particles twice. The same border always draws the
        same places. Columns come first, in all rows; what the rows read is sound by then.
        """
        height, width = self.shape
        every_row, every_column = np.arange(height)[:, None], np.arange(width)
        for lines, last in ((self.left, 0), (self.right, width - 1)):
            if lines:
                yield every_row, np.abs(last - np.arange(lines)), every_row, np.abs(last - _drawn(height, lines))
        for lines, last in ((self.top, 0), (self.bottom, height - 1)):
            if lines:
                yield (
                    np.abs(last - np.arange(lines))[:, None],
                    every_column,
                    np.abs(last - _drawn(width, lines).T),
                    every_column,
                )


class SoundBorder(MicrographSource):
    """A micrograph whose bad border is replaced; closed together with the original.

    Parameters
    ----------
    source
        The opened micrograph.
    border
        Its bad border.
    """

    def __init__(self, source: MicrographSource, border: BadBorder) -> None:
        self._source, self._border = source, border
        self.path, self.shape, self.dtype = source.path, source.shape, source.dtype
        self.pixel_size_angstrom, self.warnings = source.pixel_size_angstrom, source.warnings

    def read_rows(self, start: int, stop: int) -> ImageF32:
        """Read rows; those pixels that belong to the bad border are replaced."""
        rows = self._source.read_rows(start, stop)
        self.repair(rows, start)
        return rows

    def repair(self, rows: ImageF32, start: int) -> None:
        """Replace the bad border in some rows, in place; the first of them is row `start`."""
        self._repair_columns(rows, start)
        for first, above in zip((0, self.shape[0] - self._border.bottom), self._ends, strict=True):
            begin, end = max(first, start), min(first + len(above), start + len(rows))
            if begin < end:
                rows[begin - start : end - start] = above[begin - first : end - first]

    def close(self) -> None:
        """Close the micrograph."""
        self._source.close()

    def _repair_columns(self, rows: ImageF32, start: int) -> None:
        height, width = self.shape
        every = np.arange(len(rows))[:, None]
        for lines, last in ((self._border.left, 0), (self._border.right, width - 1)):
            if lines:
                drawn = _drawn(height, lines)[start : start + len(rows)]
                rows[:, np.abs(last - np.arange(lines))] = rows[every, np.abs(last - drawn)]

    @functools.cached_property
    def _ends(self) -> tuple[ImageF32, ImageF32]:
        """The rows to write at the top and at the bottom, from top to bottom."""
        top = self._from_beside(0, self._border.top)
        bottom = self._from_beside(self.shape[0] - 1, self._border.bottom)
        return top, bottom[::-1]

    def _from_beside(self, last: int, lines: int) -> ImageF32:
        """Make `lines` rows, the outermost first; `last` is the number of the outermost row of the micrograph."""
        width = self.shape[1]
        if not lines:
            return np.empty((0, width), np.float32)
        drawn = np.abs(last - _drawn(width, lines).T)
        first, stop = int(drawn.min()), int(drawn.max()) + 1
        rows = self._source.read_rows(first, stop)
        self._repair_columns(rows, first)
        return rows[drawn - first, np.arange(width)]


def bad_border_of(read_rows: ReadRows, shape: tuple[int, int], sampled: np.ndarray) -> BadBorder:
    """Look for a bad border of a micrograph.

    Parameters
    ----------
    read_rows
        Called with the first row and one past the last.
    shape
        ``(y, x)``.
    sampled
        The pixels of `cryoplug.core.sampled_rows.sampled_rows`.
    """
    if not may_have_bad_border(shape):
        return BadBorder(shape)
    height, across = shape[0], sampled_rows(shape[1])
    top, bottom = read_rows(0, LINES_SEEN), read_rows(height - LINES_SEEN, height)
    sides = top[:, across].T, bottom[::-1, across].T, sampled[:, :LINES_SEEN], sampled[:, : -LINES_SEEN - 1 : -1]
    return judged(shape, np.stack(sides))


def may_have_bad_border(shape: tuple[int, int]) -> bool:
    """Tell whether an image is large enough to be judged."""
    return min(shape) >= SMALLEST_SIDE


def judged(shape: tuple[int, int], sides: np.ndarray) -> BadBorder:
    """Decide which lines are off; this is the one place for that.

    Parameters
    ----------
    shape
        Of the micrograph, ``(y, x)``; see `may_have_bad_border`.
    sides
        Pixels at the top, at the bottom, at the left and at the right, ``(4, SAMPLED_ROWS, LINES_SEEN)``: of each line, from
        the outermost to the inside, those that `cryoplug.core.sampled_rows.sampled_rows` names.
    """
    if not np.isfinite(sides).all():
        return BadBorder(shape)  # It will be refused.
    pixels = sides.astype(np.float64)
    half = SAMPLED_ROWS // 2
    halves = (pixels @ _unexpected()).reshape(4, 2, half, _JUDGED)
    # Each half by its own noise: one may lie in gold, or be masked.
    noise = _deviation(halves[..., MOST_LINES:], 2)
    noise = np.maximum(noise, LEAST_SPREAD * _deviation(pixels[:, ::_SPARSE], 1)[:, None])[:, :, None]
    noise[noise == 0] = np.inf  # Most pixels are equal: nothing can stand out.
    halves.sort(axis=2)
    lower, middle, upper = (halves[:, :, rank] for rank in (half // 4, half // 2, half - 1 - half // 4))
    off = (np.maximum(lower, -upper) > OFF * noise).any(axis=1)
    # Lines of these two kinds reach to the border, so the outermost tells whether to look for more.
    if (_spread(halves[..., :1]) > NOISIER * noise).any():
        off |= np.logical_and.accumulate((_spread(halves) > NOISIER * noise).any(axis=1), axis=1)
    if (_equal(pixels[..., :1]) > CONSTANT).any():
        equal = _equal(pixels[..., :_JUDGED])
        constant = np.logical_and.accumulate(equal > CONSTANT, axis=1)
        off |= constant & (np.median(equal[:, MOST_LINES:], axis=1) < ORDINARY)[:, None]
    echoes = (np.abs(middle) > ECHO * noise).any(axis=1)
    return BadBorder(shape, *map(_lines_off, off, echoes))


def _spread(ascending: np.ndarray) -> np.ndarray:
    """Give the robust standard deviation of each half of each line, whose pixels are sorted."""
    rank = ascending.shape[2] // 2
    apart = np.abs(ascending - ascending[:, :, rank, None])
    apart.partition(rank, axis=2)
    return _SIGMAS * apart[:, :, rank]


def _equal(pixels: np.ndarray) -> np.ndarray:
    """Give the part of each line's pixels that are equal to the next."""
    return np.asarray((pixels[:, 1:] == pixels[:, :-1]).mean(axis=1))


def _lines_off(off: np.ndarray, echoes: np.ndarray) -> int:
    """Give the number of lines to replace at one side: all up to the innermost that is off, and its echoes."""
    lines = int(np.flatnonzero(off)[-1]) + 1 if off.any() else 0
    if lines > MOST_LINES:
        return 0  # Too wide for a border.
    while 0 < lines < MOST_LINES and echoes[lines : lines + 2].any():
        lines += 1
    return lines


@functools.cache
def _unexpected() -> np.ndarray:
    """Give the matrix that turns pixels into differences from what the lines inside lead to expect."""
    distance = np.arange(2, 2 + _FITTED)
    # The value at distance 0 of a straight line that is fitted to them.
    expected = np.linalg.pinv(np.stack([np.ones(_FITTED), distance], axis=1))[0]
    result = np.eye(LINES_SEEN, _JUDGED)
    for line in range(_JUDGED):
        result[line + distance, line] -= expected
    return result


def _deviation(values: np.ndarray, axes: int) -> np.ndarray:
    """Give robust standard deviations; the first `axes` axes stay."""
    flat = values.reshape(*values.shape[:axes], -1)
    middle = flat.shape[-1] // 2
    apart = np.abs(flat - np.partition(flat, middle)[..., middle, None])
    apart.partition(middle)
    return _SIGMAS * apart[..., middle]


@functools.lru_cache(maxsize=8)
def _drawn(length: int, lines: int) -> np.ndarray:
    """Give, for each pixel of a bad border, the number of the line from which it is drawn; ``(length, lines)``."""
    reach = max(_DRAWN_FROM, lines)
    return np.random.default_rng(lines).integers(lines, lines + reach, (length, lines))
