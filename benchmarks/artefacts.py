"""What a denoiser may add to an image: power where there was noise alone, a grid, a halo, the trace of a hot pixel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Image64 = npt.NDArray[np.float64]
GRID_PERIODS = (2, 4, 8, 16)
"""Pixels of the network after which its strided layers repeat."""
_BLOCK = 256
_NEIGHBOURS = 9
_BORDER = 12
_LOWEST = 0.1


def variance_fraction(denoised: Image64, raw: Image64, *, longest_px: float | None = None) -> float:
    """Give the variance of what came out over that of what went in, of periods up to `longest_px` pixels."""
    if longest_px is None:
        return float(denoised.var() / raw.var())
    return float(_fine_power(denoised, longest_px) / _fine_power(raw, longest_px))


def grid_fraction(denoised: Image64) -> float:
    """Measure a checkerboard: the part of the variance at the frequencies of the network's grid beyond their neighbours'.

    The image is cut into blocks with soft borders; the power spectra of the blocks are averaged. At each frequency on the
    grid of `GRID_PERIODS`, along both axes and both diagonals, the median power of nearby places of the same distance to the
    origin is taken off: a spectrum falls steeply, and carbon has rings.

    Parameters
    ----------
    denoised
        ``(y, x)``, on the grid that the network saw.

    Returns
    -------
    float
        From 0 to 1. A grid of 0.01 has a tenth of the contrast of the rest; one of 0.001 is not seen.
    """
    side = min(_BLOCK, *denoised.shape)
    window = np.outer(np.hanning(side), np.hanning(side))
    starts = [range(0, length - side + 1, max(1, side // 2)) for length in denoised.shape]
    power = np.zeros((side, side))
    for y in starts[0]:
        for x in starts[1]:
            block = denoised[y : y + side, x : x + side]
            power += np.abs(np.fft.fft2((block - block.mean()) * window)) ** 2
    total = power.sum()
    if total == 0:
        return 0.0
    # Nearer to the origin the particles themselves stand out by chance.
    places = {
        (round(ky * harmonic / period * side) % side, round(kx * harmonic / period * side) % side)
        for period in GRID_PERIODS
        for harmonic in range(1 - period, period, 2)
        for ky, kx in ((0, 1), (1, 0), (1, 1), (1, -1))
        if abs(harmonic) / period >= _LOWEST
    }
    # Overlapping blocks count for two thirds, and nine places of a soft window for four: three standard errors of their mean.
    blocks = len(starts[0]) * len(starts[1])
    chance = 1 + 3 / np.sqrt(4 * max(1.0, blocks / 1.5))
    return float(sum(_excess(power, y, x, chance) for y, x in places) / total)


def halo(denoised: Image64, raw: Image64, region: npt.NDArray[np.bool_], *, reach_px: int) -> tuple[float, float]:
    """Measure halo and ringing beside the edge of a region: the mean of ``denoised - raw`` by the distance to the edge.

    Noise vanishes in the mean over all pixels of one distance, so no truth is needed: what is left is bias. The two
    pixels nearest to the edge are left out, and the mean far from the edge is taken off on each side.

    Parameters
    ----------
    denoised, raw
        ``(y, x)``, same units.
    region
        True inside the carbon, the gold, the crystal.
    reach_px
        Distances up to this are looked at.

    Returns
    -------
    tuple
        The largest bias over the height of the step, and the same over the standard deviation of the raw pixels.
    """
    outward = ndimage.distance_transform_edt(~region)
    inward = ndimage.distance_transform_edt(region)
    worst = 0.0
    plateaus = []
    # What the border of the image does is another matter.
    seen = np.zeros(raw.shape, bool)
    seen[_BORDER:-_BORDER, _BORDER:-_BORDER] = True
    for distance in (np.where(seen, outward, 0), np.where(seen, inward, 0)):
        far = (distance > reach_px) & (distance < 4 * reach_px)
        if not far.any():
            far = distance > 0.5 * distance.max()
        plateaus.append(float(raw[far].mean()))
        offset = float((denoised - raw)[far].mean())
        # Bins grow outwards, so that each holds enough pixels to silence the noise.
        for low, high in zip(_bins(reach_px)[:-1], _bins(reach_px)[1:], strict=True):
            inside = (distance > low) & (distance <= high)
            if inside.sum() > 100:
                noise = 3 * float((denoised - raw)[inside].std()) / np.sqrt(inside.sum())
                worst = max(worst, abs(float((denoised - raw)[inside].mean()) - offset) - noise)
    step = abs(plateaus[0] - plateaus[1])
    return (worst / step if step > 0 else float("nan")), worst / float(raw.std())


def dark_region(raw: Image64, *, blur_px: float) -> npt.NDArray[np.bool_]:
    """Find a region much darker than the rest in a real micrograph; all False where there is none."""
    smooth = ndimage.gaussian_filter(raw, blur_px)
    middle = np.median(smooth)
    spread = (np.quantile(smooth, 0.8413) - middle) or 1.0
    dark = smooth < middle - 6 * spread
    dark[:_BORDER] = dark[-_BORDER:] = dark[:, :_BORDER] = dark[:, -_BORDER:] = False
    labels, count = ndimage.label(dark)
    if not count:
        return np.zeros(raw.shape, bool)
    sizes = ndimage.sum_labels(dark, labels, range(1, count + 1))
    region: npt.NDArray[np.bool_] = labels == int(np.argmax(sizes)) + 1
    return region if region.sum() > 1000 else np.zeros(raw.shape, bool)


def trace_of_hot_pixels(
    with_hot: Image64, without: Image64, places: npt.NDArray[np.int64], *, raw_deviation: float
) -> float:
    """Give the largest change that hot pixels cause elsewhere, over the standard deviation of the output without them.

    An output of less than a hundredth of the raw pixels' deviation is as good as flat: that hundredth is the unit then.
    """
    near = np.zeros(without.shape, bool)
    near[tuple(places.T)] = True
    elsewhere = ~ndimage.binary_dilation(near, np.ones((3, 3), bool))
    unit = max(float(without.std()), 0.01 * raw_deviation)
    return float(np.abs(with_hot - without)[elsewhere].max() / unit)


def _fine_power(image: Image64, longest_px: float) -> float:
    power = np.abs(np.fft.rfft2(image - image.mean())) ** 2
    radius = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None])
    return float(power[radius >= 1 / longest_px].sum())


def _excess(power: Image64, y: int, x: int, chance: float) -> float:
    """Give the power at a frequency and its eight neighbours beyond `chance` times what is elsewhere at that distance."""
    side = len(power)
    reach = np.arange(-_NEIGHBOURS, _NEIGHBOURS + 1)
    around = power[np.ix_((y + reach) % side, (x + reach) % side)]
    rows, columns = ((at + side // 2) % side - side // 2 + reach for at in (y, x))
    distance = np.hypot(reach[:, None], reach[None, :])
    radius = np.hypot(rows[:, None], columns[None, :])
    alike = (np.abs(radius - radius[_NEIGHBOURS, _NEIGHBOURS]) < 1.5) & (distance >= 3)
    here = distance < 1.5
    return float(max(0.0, around[here].sum() - chance * here.sum() * np.median(around[alike])))


def _bins(reach_px: int) -> Image64:
    return np.unique(np.geomspace(2, reach_px, 24).round())
