"""The noise where there are no particles: a second opinion on the law of `noise_power` at low frequencies.

A denoiser that also shows the particles alone shows where there are none. In such places the power is that of the noise and
of the ice, so it is an upper limit for the noise. The lower limit is the covariance of the removed part with the micrograph,
``<y - f(y), y>``: for a perfect denoiser this is the noise alone, for a real one rather less. So the noise lies between
both limits. They are compared at 87 to 52 angstrom, where particles are strong and the grain of the ice is weak, and relative
to the noise of fine detail in the same places, because all noise is weaker where ice is thick.
A law above the upper limit is wrong (some cameras lose electrons that arrive together), and is corrected. A law below the
lower limit may be wrong (a camera's blur may have a long tail); or the denoiser does not see some particles. These two cases
cannot be separated, so cryoplug only warns. docs/decisions/0027 has figures.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryoplug.metrics.micrograph_noise import MicrographNoise
from cryoplug.metrics.noise_power import POINTS, STEP, TRUSTED_DB, unsure
from cryoplug.metrics.rings import Curve

DISTANCES_ANGSTROM = (87.0, 65.0, 52.0)
"""Resolutions of the comparison. At coarser ones ice of uneven thickness disturbs, at finer ones the grain of the ice."""
LEVEL_CYCLES = (0.37, 0.41, 0.45)
"""Frequencies of fine detail in cycles per pixel, where there is hardly anything but noise."""
LEAST_PART = 0.1
"""Least part of pixels without particles; below it, nothing is measured."""
MOST_PART = 0.95
"""Part without particles above which there is no warning of stronger noise: the denoiser may have missed particles."""
WINDOW_PX = 512
"""Side in pixels of the windows to search; at least half of it."""
_REACH_PX = 64
"""Largest distance in pixels of two pixels that are correlated; it decides the resolution in frequency."""
_BORDER_PX = 64
"""Pixels to leave out on each side of a window: there a network sees less, and the high-pass filter wraps around."""
_HIGHPASS = 0.006
_PARTICLE = 0.1
"""Level above which a place is a particle, in deviations of the micrograph, after a blur of `_BLUR_PX`."""
_BLUR_PX = 2.0
_AROUND_PX = 9
_CELL_PX = 32
_USUAL = 1.5
"""Cells whose fine noise is this many times stronger or weaker than the median do not count: gold, a gap of the detector, a
flat border. Nor does a micrograph whose places differ so much from its law."""
_MARGIN_DB = 0.1
_FADES_FROM, _FADES_TO = 52.0, 13.0
"""Resolutions in angstrom between which a correction fades out, towards the fine detail where the law was fitted."""


@dataclass(frozen=True, eq=False)
class IceNoise:
    """The noise in places without particles, at `DISTANCES_ANGSTROM`."""

    most: Curve
    """Upper limit: power of these places, as the variance of such white noise, in the units of the windows."""
    least: Curve
    """Lower limit: the part of this power that the denoiser removes."""
    level: Curve
    """Like `most`, at `LEVEL_CYCLES`."""
    part: float
    """Part of the examined pixels that lie in such places, 0 to 1."""
    error_db: float
    """Standard error of the mean of either limit."""


class IceSpectrum:
    """Measures places without particles in the windows of one micrograph.

    Parameters
    ----------
    pixel_size_angstrom
        Pixel size of the windows.
    """

    def __init__(self, pixel_size_angstrom: float) -> None:
        self._frequency: Curve = np.append(pixel_size_angstrom / np.array(DISTANCES_ANGSTROM), LEVEL_CYCLES)
        lags = np.arange(-_REACH_PX, _REACH_PX + 1)
        self._distance = np.hypot(lags[:, None], lags[None])
        self._place = np.ix_(lags, lags)
        self._most, self._least, self._pairs = (np.zeros(self._distance.shape) for _ in range(3))
        self._pixels, self._seen = 0.0, 0

    def add(self, noisy: np.ndarray, image: np.ndarray, particles: np.ndarray) -> None:
        """Add one square window (all of equal side): its pixels, and both outputs of the denoiser."""
        inner = np.zeros(noisy.shape, bool)
        inner[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX] = True
        empty = inner & ~_grown(np.abs(_blurred(particles, _BLUR_PX)) > _PARTICLE, _AROUND_PX) & _usual(noisy)
        self._seen += int(inner.sum())
        self._pixels += float(empty.sum())
        size = tuple(side + 2 * _REACH_PX for side in noisy.shape)
        seen, left, places = (
            np.fft.rfft2(pixels * empty, s=size)
            for pixels in (_highpassed(noisy), _highpassed(noisy - image), np.ones(noisy.shape))
        )
        for total, terms in (
            (self._most, seen * seen.conj()),
            (self._least, left * seen.conj()),
            (self._pairs, places * places.conj()),
        ):
            total += np.fft.irfft2(terms, s=size)[self._place]

    def found(self) -> IceNoise | None:
        """Give the result of all windows together; None if too few places are without particles."""
        if not self._seen or (part := self._pixels / self._seen) < LEAST_PART:
            return None
        taper = 0.5 + 0.5 * np.cos(np.pi * np.minimum(self._distance / _REACH_PX, 1.0))
        weight = taper / np.maximum(self._pairs, 1.0)
        # The transform of a covariance, in the mean over all directions: cos turns into J0.
        angles = (np.arange(48) + 0.5) / 96 * np.pi
        waves = [
            np.cos(2 * np.pi * one * self._distance[..., None] * np.sin(angles)).mean(axis=-1) * weight
            for one in self._frequency
        ]
        most, least = (
            np.maximum([(wave * total).sum() for wave in waves], 1e-12) for total in (self._most, self._least)
        )
        low = self._frequency[: len(DISTANCES_ANGSTROM)]
        # Half of the Fourier terms between the first frequency and the last; a little more count, which are correlated.
        terms = 0.5 * math.pi * (low.max() ** 2 - low.min() ** 2) * self._pixels
        return IceNoise(most[: low.size], least[: low.size], most[low.size :], part, _decibel(1.0 / math.sqrt(terms)))


def checked_in_ice(
    noise: MicrographNoise, ice: IceNoise | None, *, scale: float, pixel_size_angstrom: float
) -> tuple[MicrographNoise, str]:
    """Compare the law of a micrograph with its places without particles; correct it if it is too high.

    Parameters
    ----------
    noise
        The law, in normalised pixels.
    ice
        From `IceSpectrum`; None changes nothing.
    scale
        Unit of the windows over that of `noise`.
    pixel_size_angstrom
        Pixel size of the grid of `noise`.

    Returns
    -------
    tuple
        The noise, and a remark for the user: the correction, or a warning that the noise may be stronger; else empty.
    """
    if ice is None or noise.uncertainty_db is None:
        return noise, ""
    at = pixel_size_angstrom / np.array(DISTANCES_ANGSTROM)
    most, least, level = (
        10 * np.log10(power * scale**2 / np.interp(where, np.arange(POINTS) * STEP, noise.power))
        for power, where in ((ice.most, at), (ice.least, at), (ice.level, np.array(LEVEL_CYCLES)))
    )
    if abs(level.mean()) > 10 * math.log10(_USUAL):
        return noise, ""
    most, least = most - level.mean(), least - level.mean()
    margin = _MARGIN_DB + 2 * ice.error_db
    high, low = float(most.mean()), float(least.mean())
    band = f"at {DISTANCES_ANGSTROM[-1]:g} to {DISTANCES_ANGSTROM[0]:g} angstrom"
    # Particles that were not seen lift the higher of the two: it must be below the law, the middle of both clearly so.
    if high < -ice.error_db and (high + low) / 2 < -margin:
        offset = np.round((most + least) / 2, 2)
        remark = (
            f"its noise {band} was taken to be {-float(offset.mean()):.1f} dB weaker than the spectrum beyond the signal "
            "predicts, because places without particles show so"
        )
        return _corrected(noise, at, offset, uncertainty_db=(high - low) / 2 + ice.error_db), remark
    if low > margin and ice.part <= MOST_PART:
        return noise, (
            f"its noise {band} may be up to {low:.1f} dB stronger than assumed, or the general model misses some particles; "
            "compare the result with a Gaussian"
        )
    return _confirmed(noise, max(abs(high), abs(low)) + ice.error_db), ""


def _corrected(noise: MicrographNoise, at: Curve, offset_db: Curve, *, uncertainty_db: float) -> MicrographNoise:
    """Change the power by these decibels at these frequencies; by as much below them, and by less and less above."""
    frequency = np.arange(POINTS) * STEP
    fine = at[-1] * _FADES_FROM / _FADES_TO
    fade = np.clip(np.log(fine / np.maximum(frequency, 1e-6)) / math.log(_FADES_FROM / _FADES_TO), 0, 1)
    power = np.array(noise.power) * 10 ** (np.interp(frequency, at, offset_db) * fade / 10)
    uncertainty = round(uncertainty_db, 2)
    problem = "" if _is_unsure(noise) else noise.problem
    if not problem and uncertainty > TRUSTED_DB:
        problem = (
            f"its noise at low frequencies is known to {uncertainty:.2g} dB (allowed: {TRUSTED_DB:g}): places without "
            "particles contradict the spectrum beyond the signal"
        )
    digits = tuple(float(f"{value:.6g}") for value in power)
    return dataclasses.replace(noise, power=digits, source="ice", uncertainty_db=uncertainty, problem=problem)


def _confirmed(noise: MicrographNoise, within_db: float) -> MicrographNoise:
    """Trust a law that was too uncertain by itself, because the places without particles confirm it."""
    if not _is_unsure(noise) or within_db > TRUSTED_DB:
        return noise
    return dataclasses.replace(noise, source="ice", uncertainty_db=round(within_db, 2), problem="")


def _is_unsure(noise: MicrographNoise) -> bool:
    """Say whether the only problem of a law is its uncertainty."""
    return noise.uncertainty_db is not None and noise.problem == unsure(noise.uncertainty_db)


def _highpassed(pixels: np.ndarray) -> npt.NDArray[np.float64]:
    squared = _squared_frequency(pixels.shape)
    return np.fft.irfft2(np.fft.rfft2(pixels) * (1 - np.exp(-squared / (2 * _HIGHPASS**2))), s=pixels.shape)


def _blurred(pixels: np.ndarray, sigma_px: float) -> npt.NDArray[np.float64]:
    squared = _squared_frequency(pixels.shape)
    return np.fft.irfft2(np.fft.rfft2(pixels) * np.exp(-2 * (np.pi * sigma_px) ** 2 * squared), s=pixels.shape)


def _squared_frequency(shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    return np.fft.fftfreq(shape[0])[:, None] ** 2 + np.fft.rfftfreq(shape[1])[None] ** 2


def _usual(noisy: np.ndarray) -> npt.NDArray[np.bool_]:
    """Mark where fine noise is as strong as elsewhere in the window; pixels beyond the last whole cell are not marked."""
    fine = (noisy - _blurred(noisy, 1.0)) ** 2
    rows, columns = (side // _CELL_PX for side in noisy.shape)
    cells = fine[: rows * _CELL_PX, : columns * _CELL_PX].reshape(rows, _CELL_PX, columns, _CELL_PX).mean(axis=(1, 3))
    middle = float(np.median(cells))
    usual = (cells > middle / _USUAL) & (cells < middle * _USUAL)
    whole = np.zeros(noisy.shape, bool)
    whole[: rows * _CELL_PX, : columns * _CELL_PX] = np.repeat(np.repeat(usual, _CELL_PX, 0), _CELL_PX, 1)
    return whole


def _grown(mask: np.ndarray, reach_px: int) -> npt.NDArray[np.bool_]:
    """Grow a mask by `reach_px` rows and columns on each side."""
    for axis in (0, 1):
        sums = np.cumsum(np.pad(mask.astype(np.int32), [(reach_px + 1, reach_px)] * 2), axis=axis)
        length, width = mask.shape[axis], 2 * reach_px + 1
        counts = np.take(sums, np.arange(width, width + length), axis) - np.take(sums, np.arange(length), axis)
        other = slice(reach_px + 1, reach_px + 1 + mask.shape[1 - axis])
        mask = (counts[:, other] if axis == 0 else counts[other]) > 0
    return mask


def _decibel(natural: float) -> float:
    return natural * 10 / math.log(10)
