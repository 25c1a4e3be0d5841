"""Two properties of noise that its spectrum does not show: its skewness, and its growth with the number of electrons.

Electrons are counted. So the noise is skewed, and its variance follows the local mean. Both are third-order cumulants (of
noise with itself, and of noise with the signal), and a network learns them sooner than the signal (docs/decisions/0008). So
both are measured on the micrograph itself, beyond the frequencies of the signal, and the noise that is drawn has them, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cryoplug.metrics.noise_power import POINTS, STEP, without_outliers
from cryoplug.metrics.rings import Curve, frequencies

CELL_PX = 32
"""Side in pixels of the cells in which local mean and local noise are compared."""
MOST_SLOPE = 0.5
MOST_SKEWNESS = 1.5
"""Largest skewness: counted electrons have less, and drawn noise is limited to it."""
OVERSAMPLING = 1.5
"""Sampling over the network's, above which no three waves of the network's grid add up to the sampling frequency."""
_HIGH_FROM, _HIGH_TO = 0.25, 0.3
"""Cycles per pixel between which the measurement fades in: lower frequencies are left out, higher ones count."""
_BORDER_PX = 16
_LIMIT_SIGMAS = 6.0
"""Pixels are clipped to this many standard deviations, so that hot pixels do not decide."""


@dataclass(frozen=True)
class NoiseShape:
    """Third-order properties of noise, on the network's grid."""

    skewness: float
    """Skewness of the white noise on a finer grid, from which a filter makes this noise; ``1 / sqrt(mean)`` for counts."""
    slope: float
    """Growth with the local mean m of the normalised pixels: the variance is ``1 + slope * m`` times its average."""
    oversampling: float = 1.0
    """Sampling of the finer grid over the network's: 1, or `OVERSAMPLING` after a Fourier crop. Then three waves of noise
    depend on each other if their frequencies add up to 0, but not if they add up to the sampling frequency."""


def fine_side(side: int, oversampling: float) -> int:
    """Give the (even) side of the finer grid for an even side of the network's grid."""
    return 2 * round(side * oversampling / 2)


def measure_shape(blocks: Iterable[np.ndarray], power: Curve, *, cropped: bool = False) -> NoiseShape:
    """Measure noise beyond the signal.

    Parameters
    ----------
    blocks
        Normalised square blocks on the network's grid, all of one even side of 128 pixels or more.
    power
        Power of their noise, at 0, `STEP`, 2 `STEP`, ... cycles per pixel.
    cropped
        Whether a Fourier crop made the network's grid.
    """
    oversampling = OVERSAMPLING if cropped else 1.0
    cubes, squares, pixels, cells = 0.0, 0.0, 0, []
    whitener: np.ndarray | None = None
    for block in blocks:
        if whitener is None:
            frequency = frequencies((block.shape[0], block.shape[1]))
            high = _step(frequency)
            kernel = _fine_kernel(high, block.shape[0], oversampling)
            whitener = high / np.sqrt(np.interp(frequency, np.arange(POINTS) * STEP, power))
        pixel = without_outliers(block)
        noise = np.fft.irfft2(np.fft.rfft2(pixel) * whitener, s=block.shape)
        inner = (slice(_BORDER_PX, -_BORDER_PX),) * 2
        noise, pixel = noise[inner], pixel[inner]
        limit = _LIMIT_SIGMAS * float(np.median(np.abs(noise))) / 0.6745
        noise = np.clip(noise, -limit, limit)
        cubes += float((noise**3).sum())
        squares += float((noise**2).sum())
        pixels += noise.size
        cells.append(np.stack([_cell_means(noise**2), _cell_means(pixel)]))
    if whitener is None or squares == 0:
        return NoiseShape(0.0, 0.0, oversampling)
    # Skewness of u = kernel * w with independent w of skewness g: g sum(k^3) / sum(k^2)^1.5.
    transfer = float((kernel**3).sum()) / float((kernel**2).sum()) ** 1.5
    skewness = (cubes / pixels) / (squares / pixels) ** 1.5 / transfer
    slope = _slope(*np.concatenate(cells, axis=1))
    return NoiseShape(
        float(np.clip(skewness, -MOST_SKEWNESS, MOST_SKEWNESS)),
        float(np.clip(slope, -MOST_SLOPE, MOST_SLOPE)),
        oversampling,
    )


def _step(frequency: np.ndarray) -> np.ndarray:
    position = np.clip((frequency - _HIGH_FROM) / (_HIGH_TO - _HIGH_FROM), 0, 1)
    return 0.5 - 0.5 * np.cos(np.pi * position)


def _fine_kernel(gain: np.ndarray, side: int, oversampling: float) -> np.ndarray:
    """Give the filter from white noise on the finer grid to a pixel of the network's."""
    fine = fine_side(side, oversampling)
    terms = np.zeros((fine, fine // 2 + 1))
    middle = side // 2
    terms[:middle, : middle + 1] = gain[:middle]
    terms[-middle:, : middle + 1] = gain[middle:]
    return np.fft.irfft2(terms, s=(fine, fine))


def _cell_means(image: np.ndarray) -> np.ndarray:
    rows, columns = (side // CELL_PX for side in image.shape)
    cut = image[: rows * CELL_PX, : columns * CELL_PX].reshape(rows, CELL_PX, columns, CELL_PX)
    return cut.mean(axis=(1, 3)).ravel()


def _slope(variance: np.ndarray, mean: np.ndarray) -> float:
    middle = float(np.median(variance))
    usual = (variance > 0.5 * middle) & (variance < 2 * middle)
    if usual.sum() < 16:
        return 0.0
    variance, mean = variance[usual] / variance[usual].mean(), mean[usual] - mean[usual].mean()
    spread = float((mean**2).sum())
    if spread <= 0:
        return 0.0
    slope = float((variance * mean).sum()) / spread
    # Chance alone gives as much where the mean hardly varies.
    error = float(np.sqrt(((variance - 1 - slope * mean) ** 2).mean() / spread))
    return slope if abs(slope) > 2 * error else 0.0
