"""Do two images show the same exposure? Do they share a pattern of the detector? Their correlation answers both.

At low resolution the halves of an exposure share their signal: particles, ice, carbon. What they share near Nyquist is
not signal: gain that was not corrected, dust, hot pixels. On 4 real pairs (apoferritin, 1024 x 1024, one
frame against the mean of 41) the low correlation is 0.21 to 0.30, 9.3 to 13.3 standard errors above chance; the 12
crossed pairs of these files stay within -1.5 to 2.5. Their high correlation is below 0.01.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryoplug.core.micrograph import BAND_PIXELS, ImageF32, MicrographSource
from cryoplug.errors import ShapeError

HIGH_BAND = (0.40, 0.49)
"""The band near Nyquist, in cycles per pixel."""
_LOW_TOPS = (0.1, 0.2, 0.4)
"""Upper ends of the low bands in cycles per binned pixel: beyond the last one box averages alias."""
_LOW_CYCLES = 4
"""Least cycles across the image; fewer are gradients, which unrelated exposures share."""
_MOST_BINNING = 8
_BINNED_SIDE = 128
_WINDOW = 256
_STRIPS = 2
_HANN_SPREAD = 35 / 18
"""The Hann window makes neighbouring Fourier terms alike: errors grow by 1 + 2 (4/9 + 1/36) in two dimensions."""
_NO_POWER = 1e-6
BLOCK_PX = 16
"""Side of a block in pixels: with one electron on ten pixels, no such block is empty by chance."""
_WORTH_FILLING = 0.005
"""Part of the blocks that must be blank; a few are dead pixels or overlays."""


@dataclass(frozen=True)
class ImageSample:
    """What one pass over an image keeps for comparing it with another one."""

    shape: tuple[int, int]
    """``(y, x)`` of the image."""
    low: ImageF32
    """The image in boxes of 1 to 8 pixels, averaged: ``(y, x)``, at least 128 on the shorter side where it has them."""
    strips: tuple[ImageF32, ...]
    """Rows at two heights, in full width and resolution."""
    blank: npt.NDArray[np.bool_]
    """For each block of 16 x 16 pixels whether all its pixels are equal: masked, or never illuminated."""


@dataclass(frozen=True)
class Correlation:
    """A correlation coefficient and how far chance alone spreads it."""

    value: float
    """Correlation coefficient, from -1 to 1."""
    error: float
    """Standard error when the two images have nothing in common; above 0."""

    @property
    def significance(self) -> float:
        """Standard errors above chance."""
        return self.value / self.error


_NOTHING = Correlation(0.0, 1.0)


def sample_image(source: MicrographSource) -> ImageSample:
    """Read an image once and keep what `low_correlations` and `high_correlation` need (20 MB for 4096 x 4096, 12 of them kept).

    Parameters
    ----------
    source
        Opened image; all its pixels must be finite.
    """
    sampler = ImageSampler(source.shape)
    step = whole_boxes(source.shape)
    for start in range(0, source.shape[0], step):
        sampler.add(start, source.read_rows(start, min(start + step, source.shape[0])))
    return sampler.sample()


def whole_boxes(shape: tuple[int, int]) -> int:
    """Give how many rows to hand to `ImageSampler` at once: whole blocks and whole boxes, about as many as in other bands."""
    unit = math.lcm(BLOCK_PX, binning(shape))
    return max(unit, BAND_PIXELS // shape[1] // unit * unit)


class ImageSampler:
    """Samples an image while its rows pass by, from above, in bands of `whole_boxes` rows (the last one may have fewer).

    Parameters
    ----------
    shape
        ``(y, x)``.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        height, width = self._shape = shape
        self._box = box = binning(shape)
        self._starts = _strip_starts(shape)
        self._strips = [np.empty((min(_WINDOW, height, width), width), np.float32) for _ in self._starts]
        self._low = np.empty((height // box, width // box), np.float32)
        # Of the rows of each block; columns follow at the end. Blocks of so few columns take numpy 100 times as long.
        self._lowest, self._highest = np.empty((2, height // BLOCK_PX, width), np.float32)

    def add(self, start: int, rows: ImageF32) -> None:
        """Take rows into account; the first one is row `start` of the image, a multiple of `whole_boxes`."""
        box, width = self._box, self._shape[1]
        blocks = slice(start // BLOCK_PX, start // BLOCK_PX + len(rows) // BLOCK_PX)
        by_block = rows[: len(rows) // BLOCK_PX * BLOCK_PX].reshape(-1, BLOCK_PX, width)
        np.minimum.reduce(by_block, 1, out=self._lowest[blocks])
        np.maximum.reduce(by_block, 1, out=self._highest[blocks])
        whole = len(rows) // box
        if whole:
            boxes = rows[: whole * box].reshape(whole, box, width).mean(1)
            self._low[start // box : start // box + whole] = _means_along(boxes, box)
        for first, strip in zip(self._starts, self._strips, strict=True):
            begin, end = max(start, first), min(start + len(rows), first + len(strip))
            if begin < end:
                strip[begin - first : end - first] = rows[begin - start : end - start]

    def sample(self) -> ImageSample:
        """Give the sample, when all rows were added."""
        lowest, highest = _folded(np.minimum, self._lowest), _folded(np.maximum, self._highest)
        return ImageSample(self._shape, self._low, tuple(self._strips), lowest == highest)


def _means_along(rows: ImageF32, box: int) -> ImageF32:
    """Average each `box` columns into one; columns that are left over do not count."""
    columns = rows[:, : rows.shape[1] // box * box]
    if box != 8:
        return columns.reshape(len(rows), -1, box).mean(2)
    for _ in range(3):  # in numpy's own order of summation, in half of its time
        columns = columns[:, 0::2] + columns[:, 1::2]
    return columns / np.float32(box)


def _folded(extreme: np.ufunc, rows: ImageF32) -> ImageF32:
    """Give the extreme (minimum or maximum) over the columns of each block."""
    columns = rows[:, : rows.shape[1] // BLOCK_PX * BLOCK_PX]
    while columns.shape[1] > rows.shape[1] // BLOCK_PX:
        columns = extreme(columns[:, 0::2], columns[:, 1::2])
    return columns


def _strip_starts(shape: tuple[int, int]) -> list[int]:
    side = min(_WINDOW, *shape)
    return sorted({(shape[0] - side) * (2 * i + 1) // (2 * _STRIPS) for i in range(_STRIPS)})


def without_blank_areas(one: ImageSample, two: ImageSample) -> tuple[ImageSample, ImageSample]:
    """Where one of two images is blank, set each to its own mean, so that the edge of the blank area cannot correlate.

    The same hard mask in every exposure makes all of them alike: 0.87 between two exposures whose halves have 0.89.

    Parameters
    ----------
    one, two
        Samples of images of equal shape.

    Returns
    -------
    tuple[ImageSample, ImageSample]
        The samples unchanged, if less than a two-hundredth is blank.
    """
    _check_shapes(one, two)
    blank = one.blank | two.blank
    if blank.all() or blank.mean() < _WORTH_FILLING:
        return one, two
    padded = np.pad(blank, 1)
    grown = np.zeros_like(blank)  # by a block on all sides, which are blank in part
    for y in range(3):
        for x in range(3):
            grown |= padded[y : y + blank.shape[0], x : x + blank.shape[1]]
    return _filled(one, grown), _filled(two, grown)


def _filled(sample: ImageSample, blank: npt.NDArray[np.bool_]) -> ImageSample:
    box = binning(sample.shape)
    low = _with_mean(sample.low, _at(blank, 0, sample.low.shape, box))
    strips = tuple(
        _with_mean(strip, _at(blank, start, strip.shape, 1))
        for start, strip in zip(_strip_starts(sample.shape), sample.strips, strict=False)
    )
    return dataclasses.replace(sample, low=low, strips=strips)


def _at(blank: npt.NDArray[np.bool_], start: int, shape: tuple[int, ...], box: int) -> npt.NDArray[np.bool_]:
    """Give the blocks as a mask of an image `shape` that begins in row `start`; pixels beyond the last block follow it."""
    rows = np.minimum((start + np.arange(shape[0]) * box) // BLOCK_PX, blank.shape[0] - 1)
    columns = np.minimum(np.arange(shape[1]) * box // BLOCK_PX, blank.shape[1] - 1)
    return blank[np.ix_(rows, columns)]


def _with_mean(image: ImageF32, mask: npt.NDArray[np.bool_]) -> ImageF32:
    seen = image[~mask]
    return np.where(mask, np.float32(seen.mean(dtype=np.float64) if seen.size else 0.0), image)


def binning(shape: tuple[int, int]) -> int:
    """Give the side of the boxes that `sample_image` averages: 8 pixels from 1024 x 1024 on, fewer in small images."""
    return max(1, min(_MOST_BINNING, min(shape) // _BINNED_SIDE))


def low_correlations(one: ImageSample, two: ImageSample) -> tuple[Correlation, ...]:
    """Correlate two images below 0.05 cycles per pixel, without gradients.

    Both are weighted by a Hann window, and each ring of Fourier terms to equal power, so that a few strong terms do not
    decide. The error is that of random phases. There are three bands, up to a quarter, a half and all of the range,
    because ice shows at the lowest frequencies only, and small particles higher up.

    Parameters
    ----------
    one, two
        Samples of images of equal shape.

    Returns
    -------
    tuple[Correlation, ...]
        One for each band; 0 with error 1 where images are constant or too small (below about 24 pixels).

    Raises
    ------
    ShapeError
        Shapes differ; the message shows both.
    """
    _check_shapes(one, two)
    terms = _low_terms(one.low.shape)
    if terms is None:
        return (_NOTHING,) * len(_LOW_TOPS)
    picked, ring, frequency = terms
    first, second = (_flat_spectrum(item.low, picked, ring) for item in (one, two))
    products = first.real * second.real + first.imag * second.imag
    powers = _power(first), _power(second)
    found = []
    for top in _LOW_TOPS:
        inside = frequency < top
        scale = math.sqrt(float(powers[0][inside].sum()) * float(powers[1][inside].sum()))
        spread = math.sqrt(0.5 * float((powers[0] * powers[1])[inside].sum())) * _HANN_SPREAD
        known = scale > 0 and spread > 0
        found.append(Correlation(float(products[inside].sum()) / scale, spread / scale) if known else _NOTHING)
    return tuple(found)


def power_above_white(sample: ImageSample) -> float:
    """Measure by how much the power at low resolution exceeds the power at the finest resolution of the sample.

    Parameters
    ----------
    sample
        Sample of the image.

    Returns
    -------
    float
        In standard errors: about 0 for white noise; far above 0 for anything visible, and for noise that the detector
        weakens towards Nyquist. Infinite if it cannot be measured.
    """
    terms = _low_terms(sample.low.shape)
    if terms is None:
        return math.inf
    picked, _, frequency = terms
    power = _power(_windowed_spectrum(sample.low)[picked])
    low, high = power[frequency < _LOW_TOPS[0]], power[frequency >= _LOW_TOPS[1]]
    if not low.size or not high.size or not high.mean() > 0:
        return math.inf
    # The power of noise is spread exponentially, and the window makes neighbours alike.
    error = _HANN_SPREAD * math.sqrt(1 / low.size + 1 / high.size)
    return (float(low.mean()) / float(high.mean()) - 1) / error


def high_correlation(one: ImageSample, two: ImageSample) -> Correlation | None:
    """Correlate two images from 0.40 to 0.49 cycles per pixel, in windows of 256 pixels.

    Parameters
    ----------
    one, two
        Samples of images of equal shape.

    Returns
    -------
    Correlation | None
        None where one of the images has no power there: it was interpolated or filtered.

    Raises
    ------
    ShapeError
        Shapes differ; the message shows both.
    """
    _check_shapes(one, two)
    cross = first_power = second_power = 0.0
    totals = [0.0, 0.0]
    count = 0
    for left, right in zip(one.strips, two.strips, strict=True):
        side = len(left)
        inside = _high_terms(side)
        for x in range(0, left.shape[1] - side + 1, side):
            spectra = [_windowed_spectrum(strip[:, x : x + side]) for strip in (left, right)]
            for which, spectrum in enumerate(spectra):
                totals[which] += float(_power(spectrum).mean())
            a, b = (spectrum[inside] for spectrum in spectra)
            cross += float((a.real * b.real + a.imag * b.imag).sum())
            first_power += float(_power(a).sum())
            second_power += float(_power(b).sum())
            count += a.size
    if not count or min(first_power / count / (totals[0] or 1), second_power / count / (totals[1] or 1)) < _NO_POWER:
        return None
    return Correlation(cross / math.sqrt(first_power * second_power), _HANN_SPREAD / math.sqrt(2 * count))


def _low_terms(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    side = min(shape)
    # The terms of x frequency 0 are there twice, as conjugates.
    picked = (frequency >= _LOW_CYCLES / side) & (frequency < _LOW_TOPS[-1])
    picked[:, 0] = False
    if not picked.any():
        return None
    return picked, (frequency[picked] * side).astype(np.intp), frequency[picked]


@functools.lru_cache(maxsize=4)
def _high_terms(side: int) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    inside = (frequency >= HIGH_BAND[0]) & (frequency <= HIGH_BAND[1])
    inside[:, 0] = False
    return inside


def _flat_spectrum(image: ImageF32, picked: np.ndarray, ring: np.ndarray) -> np.ndarray:
    terms = _windowed_spectrum(image)[picked]
    counts = np.maximum(np.bincount(ring), 1)
    power = np.bincount(ring, _power(terms)) / counts
    strength = np.sqrt(power[ring])
    return np.divide(terms, strength, out=np.zeros_like(terms), where=strength > 0)


def _windowed_spectrum(image: ImageF32) -> np.ndarray:
    weighted = np.subtract(image, image.mean(dtype=np.float64), dtype=np.float64)
    weighted *= _taper(image.shape)
    return np.fft.rfft2(weighted)


@functools.lru_cache(maxsize=4)
def _taper(shape: tuple[int, int]) -> np.ndarray:
    height, width = shape
    taper = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    taper.setflags(write=False)  # all images of this shape share it
    return taper


def _power(terms: np.ndarray) -> np.ndarray:
    return terms.real**2 + terms.imag**2


def _check_shapes(one: ImageSample, two: ImageSample) -> None:
    if one.shape != two.shape:
        raise ShapeError(f"images of shape {one.shape} and {two.shape} (y, x); allowed: equal shapes")
