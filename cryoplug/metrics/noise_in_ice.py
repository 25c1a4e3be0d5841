"""The noise where there are no particles: a second opinion on what `noise_power` continues from beyond the signal.

A denoiser that also shows the particles alone says where there are none. The power of such places is the noise's and
the ice's: the noise cannot be more. What the denoiser leaves of it, its correlation with the micrograph, ``<y - f(y),
y>``, is the noise's alone for a perfect denoiser: it says how much of the power is ice, and errs towards too little. So
the two hold the noise between them where particles are strong and the grain of the ice is weak, at 87 to 52 angstrom.
Both are taken relative to the noise of fine detail in the same places: where ice is thick, all noise is weaker.
A law above both is wrong, as where a camera loses electrons that arrive together: it is corrected. A law below both may
be wrong, as where a camera's blur has a long tail; or the denoiser does not see particles that are there. Nothing tells
the two apart, so the user hears of it and nothing is changed. docs/decisions/0027 has figures.
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
"""Where the two are compared: below, ice of uneven thickness; above, its grain."""
LEVEL_CYCLES = (0.37, 0.41, 0.45)
"""Cycles per pixel of fine detail, where there is next to nothing but noise."""
LEAST_PART = 0.1
"""If a smaller part of the pixels is free of particles, nothing is measured."""
MOST_PART = 0.95
"""Where hardly a particle is found there may be many that were not seen: then nobody is told that the noise may be more."""
WINDOW_PX = 512
"""Side of the windows in which it is looked for; at least half of it."""
_REACH_PX = 64
"""Largest distance of two pixels that are compared: decides how sharp frequencies are."""
_BORDER_PX = 64
"""Left out on each side of a window: there a network sees less, and the high-pass filter wraps around."""
_HIGHPASS = 0.006
_PARTICLE = 0.1
"""In deviations of the micrograph, blurred over `_BLUR_PX`: more is a particle."""
_BLUR_PX = 2.0
_AROUND_PX = 9
_CELL_PX = 32
_USUAL = 1.5
"""Cells whose fine noise is so many times stronger or weaker than the median's do not count: gold, a gap of the detector, a flat
border; nor does a micrograph whose places are so far from its law."""
_MARGIN_DB = 0.1
_FADES_FROM, _FADES_TO = 52.0, 13.0
"""Angstrom over which a correction fades out towards fine detail, where the law was fitted."""


@dataclass(frozen=True, eq=False)
class IceNoise:
    """What places without particles say of the noise, at `DISTANCES_ANGSTROM`."""

    most: Curve
    """Power of the places; variance that white noise of this power would have, in the units of the windows."""
    least: Curve
    """What of it the denoiser leaves."""
    level: Curve
    """Like `most`, at `LEVEL_CYCLES`."""
    part: float
    """Of the pixels that were looked at, how many are such places."""
    error_db: float
    """Standard error of the mean of either."""


class IceSpectrum:
    """Collects windows of one micrograph.

    Parameters
    ----------
    pixel_size_angstrom
        Of the windows.
    """

    def __init__(self, pixel_size_angstrom: float) -> None:
        self._frequency: Curve = np.append(pixel_size_angstrom / np.array(DISTANCES_ANGSTROM), LEVEL_CYCLES)
        lags = np.arange(-_REACH_PX, _REACH_PX + 1)
        self._distance = np.hypot(lags[:, None], lags[None])
        self._place = np.ix_(lags, lags)
        self._most, self._least, self._pairs = (np.zeros(self._distance.shape) for _ in range(3))
        self._pixels, self._seen = 0.0, 0

    def add(self, noisy: np.ndarray, image: np.ndarray, particles: np.ndarray) -> None:
        """Take one window, square, of one side for all: the pixels, and what the denoiser makes of them."""
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
        """Give what all windows say together; None when there are too few places without particles."""
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
    """Compare the law of a micrograph with its places without particles; correct it where it is too high.

    Parameters
    ----------
    noise
        The law, in normalised pixels.
    ice
        From `IceSpectrum`; None: nothing is changed.
    scale
        Units of the windows over those of `noise`.
    pixel_size_angstrom
        Of the grid of `noise`.

    Returns
    -------
    tuple
        The noise, and a remark for the user: what was changed, or that the noise may be more; else empty.
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
            f"its noise {band} was taken to be {-float(offset.mean()):.1f} dB weaker than the spectrum beyond the signal says: "
            "places without particles show it"
        )
        return _corrected(noise, at, offset, uncertainty_db=(high - low) / 2 + ice.error_db), remark
    if low > margin and ice.part <= MOST_PART:
        return noise, (
            f"its noise {band} may be up to {low:.1f} dB stronger than taken, or the general model does not see some particles: "
            "compare the result with a Gaussian"
        )
    return _confirmed(noise, max(abs(high), abs(low)) + ice.error_db), ""


def _corrected(noise: MicrographNoise, at: Curve, offset_db: Curve, *, uncertainty_db: float) -> MicrographNoise:
    """Change the power by decibels at these frequencies, as much below them, and less and less above."""
    frequency = np.arange(POINTS) * STEP
    fine = at[-1] * _FADES_FROM / _FADES_TO
    fade = np.clip(np.log(fine / np.maximum(frequency, 1e-6)) / math.log(_FADES_FROM / _FADES_TO), 0, 1)
    power = np.array(noise.power) * 10 ** (np.interp(frequency, at, offset_db) * fade / 10)
    uncertainty = round(uncertainty_db, 2)
    problem = "" if _is_unsure(noise) else noise.problem
    if not problem and uncertainty > TRUSTED_DB:
        problem = (
            f"its noise at low frequencies is known to {uncertainty:.2g} dB (allowed: {TRUSTED_DB:g}): places without "
            "particles contradict what lies beyond the signal"
        )
    digits = tuple(float(f"{value:.6g}") for value in power)
    return dataclasses.replace(noise, power=digits, source="ice", uncertainty_db=uncertainty, problem=problem)


def _confirmed(noise: MicrographNoise, within_db: float) -> MicrographNoise:
    """Trust a law that lies where the places say, although it did not know so itself."""
    if not _is_unsure(noise) or within_db > TRUSTED_DB:
        return noise
    return dataclasses.replace(noise, source="ice", uncertainty_db=round(within_db, 2), problem="")


def _is_unsure(noise: MicrographNoise) -> bool:
    """Say whether its uncertainty is all that speaks against a law."""
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
    """Tell where fine noise is as strong as elsewhere in the window; pixels beyond the last whole cell are not."""
    fine = (noisy - _blurred(noisy, 1.0)) ** 2
    rows, columns = (side // _CELL_PX for side in noisy.shape)
    cells = fine[: rows * _CELL_PX, : columns * _CELL_PX].reshape(rows, _CELL_PX, columns, _CELL_PX).mean(axis=(1, 3))
    middle = float(np.median(cells))
    usual = (cells > middle / _USUAL) & (cells < middle * _USUAL)
    whole = np.zeros(noisy.shape, bool)
    whole[: rows * _CELL_PX, : columns * _CELL_PX] = np.repeat(np.repeat(usual, _CELL_PX, 0), _CELL_PX, 1)
    return whole


def _grown(mask: np.ndarray, reach_px: int) -> npt.NDArray[np.bool_]:
    """Add all pixels that are at most so many rows and columns away."""
    for axis in (0, 1):
        sums = np.cumsum(np.pad(mask.astype(np.int32), [(reach_px + 1, reach_px)] * 2), axis=axis)
        length, width = mask.shape[axis], 2 * reach_px + 1
        counts = np.take(sums, np.arange(width, width + length), axis) - np.take(sums, np.arange(length), axis)
        other = slice(reach_px + 1, reach_px + 1 + mask.shape[1 - axis])
        mask = (counts[:, other] if axis == 0 else counts[other]) > 0
    return mask


def _decibel(natural: float) -> float:
    return natural * 10 / math.log(10)
