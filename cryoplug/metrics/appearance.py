"""How a micrograph looks to a network: grey values, noise, and whether its particles are dark or bright.

A network works well on micrographs that look like its training data. These numbers describe normalised pixels; train and
denoise measure them in the same way, so that they can be compared. train writes their ranges into checkpoint.json, and
denoise warns if a micrograph lies outside.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryoplug.metrics.pixel import Image

SCALES_PX = (4, 8, 16)
"""Sides of the blocks whose means show particles, in pixels; the training data decide which of them counts."""
_NOISE_PX = 2
"""Side of the blocks that show the skewness of the noise: counts are skewed upwards, whatever the particles. The noise's part
in larger blocks follows from these; single pixels would not do, because frames are interpolated and micrographs cropped."""
_INDEPENDENT = (4, 8)
"""Side, in blocks, of parts of a micrograph; their scatter gives the error of its skewness, so one ice ball proves nothing."""
_SURROUNDINGS = 8
"""Side, in blocks, of the surroundings whose mean is subtracted from a block: thicker ice and carbon are not particles."""
_CLIP = 3.0
"""Blocks are clipped to this many standard deviations: a few crystals must not decide the sign of a whole micrograph."""
_TILE_PX, _ENOUGH_TILES = 64, 4
NOISE_BAND = (0.4, 0.5)
"""Frequencies in cycles per pixel where hardly anything but noise is left."""
GREY_FACTOR = 2.0
"""Factor by which the spread of grey values or noise may lie outside the range of the training data. (A sum of two halves
has less noise than they, by the root of 2; that is no reason to warn.)"""
CERTAIN = 3.0
"""The sign of the training data counts if their mean skewness lies this many standard deviations from 0."""
BEYOND_CHANCE = 4.0
"""Standard errors by which a micrograph must show the opposite sign at one block size."""
NOT_AGAINST = 2.0
"""Standard errors by which it must show that sign at all other block sizes where the training micrographs agree."""
LIKE_NOISE = 1.5
"""Standard errors within which the skewness lies at every block size where dark and bright spots are balanced. Noise with the
spectra of seven micrographs was within 1.1. Micrographs that show their particles reach 1.8 at some size, mostly 3 to 20."""
LOPSIDED = 1.0
"""Skewness at any block size that is no noise's, however uncertain it is. Where few large particles lie, their own scatter makes
it uncertain: it was -3 +- 2 in fields of 350 x 128 pixels. Noise with the spectra of such fields was within 0.5."""
_HOLDS = {(4, 8): 0.9, (8, 16): 0.75}
"""Part of its skewness that a micrograph must keep from the smaller to the larger blocks. The skewness of noise halves; that
of particles grows, or stays if they are hardly larger than the blocks."""


@dataclass(frozen=True)
class Appearance:
    """The appearance of one micrograph, from its normalised pixels."""

    mean: float
    """Mean grey value."""
    sigma: float
    """Standard deviation."""
    noise_sigma: float
    """Standard deviation of white noise with the power of the image in `NOISE_BAND`; NaN below 64 pixels."""
    skewness: Mapping[int, float]
    """Skewness for each side of a block (in pixels): third moment of the means of blocks minus those of their surroundings,
    in units of their standard deviation, without the part from the noise of counts. Below 0 for dark particles on a brighter
    ground, above 0 for bright ones, 0 for noise."""
    skewness_error: Mapping[int, float]
    """Standard error of each skewness, from the scatter between parts of the micrograph; at least that of pure noise."""


@dataclass(frozen=True)
class Seen:
    """The appearance of the micrographs on which a checkpoint was trained."""

    micrographs: int
    """Number of micrographs that were measured."""
    mean: tuple[float, float]
    """Lowest and highest mean."""
    sigma: tuple[float, float]
    """Lowest and highest standard deviation."""
    noise_sigma: tuple[float, float] | None
    """Lowest and highest `Appearance.noise_sigma`, above 0; None if patches were too small."""
    noise_level: float | None
    """Root mean square of `Appearance.noise_sigma` over the micrographs."""
    skewness: Mapping[int, tuple[float, float]]
    """For each side of a block: mean and standard deviation over the micrographs."""

    def record(self) -> dict[str, Any]:
        """Give plain JSON types; `from_record` reads them back."""
        return {**vars(self), "skewness": {str(side): list(values) for side, values in self.skewness.items()}}

    @classmethod
    def from_record(cls, record: Any) -> Seen | None:
        """Read the output of `record`; None for anything else, because a checkpoint from elsewhere may hold anything."""
        try:
            noise, level = record["noise_sigma"], record["noise_level"]
            if noise is not None and not 0 < noise[0] <= level <= noise[1]:
                return None
            return cls(
                micrographs=int(record["micrographs"]),
                mean=_two(record["mean"]),
                sigma=_two(record["sigma"]),
                noise_sigma=None if noise is None else _two(noise),
                noise_level=None if noise is None else float(level),
                skewness={int(side): _two(values) for side, values in record["skewness"].items() if int(side) > 0},
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return None


def measure_appearance(patches: Iterable[Image]) -> Appearance | None:
    """Measure a micrograph from some of its patches.

    Parameters
    ----------
    patches
        Normalised pixels, ``(y, x)`` each; about a million pixels in all are enough.

    Returns
    -------
    Appearance | None
        None if no patch has at least 32 pixels a side.
    """
    images = [np.asarray(patch, np.float32) for patch in patches if min(patch.shape) >= _SURROUNDINGS * SCALES_PX[0]]
    if not images:
        return None
    pixels = np.concatenate([image.ravel() for image in images])
    skewness, errors = {}, {}
    of_noise = _third_moment([_relief(image, _NOISE_PX) for image in images])
    for side in SCALES_PX:
        found = _skewness([relief for image in images if (relief := _relief(image, side)).size], of_noise, side)
        if found is not None:
            skewness[side], errors[side] = found
    powers = [power for image in images if (power := _noise_power(image)) is not None]
    return Appearance(
        mean=float(pixels.mean(dtype=np.float64)),
        sigma=float(pixels.std(dtype=np.float64)),
        noise_sigma=math.sqrt(float(np.mean(powers))) if powers else math.nan,
        skewness=skewness,
        skewness_error=errors,
    )


def looks_like_noise(found: Appearance) -> bool:
    """Tell whether dark and bright spots are balanced at every block size, as in noise; False where nothing was measured."""
    return bool(found.skewness) and all(
        abs(value) <= min(LIKE_NOISE * found.skewness_error[side], LOPSIDED) for side, value in found.skewness.items()
    )


def summarize_appearances(appearances: Sequence[Appearance]) -> Seen | None:
    """Give the ranges over several micrographs; None without micrographs."""
    if not appearances:
        return None
    noise = [item.noise_sigma for item in appearances if item.noise_sigma > 0]
    skewness = {}
    for side in SCALES_PX:
        found = [item.skewness[side] for item in appearances if side in item.skewness]
        if found:
            # What chance gives to a single micrograph belongs to the deviation also where there is only one.
            chance = max(item.skewness_error[side] for item in appearances if side in item.skewness)
            skewness[side] = float(np.mean(found)), max(float(np.std(found)), chance)
    return Seen(
        micrographs=len(appearances),
        mean=_range([item.mean for item in appearances]),
        sigma=_range([item.sigma for item in appearances]),
        noise_sigma=_range(noise) if noise else None,
        noise_level=_root_mean_square(noise) if noise else None,
        skewness=skewness,
    )


def unlike(found: Appearance, seen: Seen) -> list[str]:
    """Say how a micrograph differs from those on which a checkpoint was trained; empty if it does not.

    Only block sizes count for which all training micrographs have the same sign. The contrast is inverted if the micrograph
    shows the opposite sign at one of these sizes, beyond chance, and does not contradict it at any other. Frames of few
    counts, ice balls and fields without particles show no sign.
    """
    remarks = []
    for name, value, limits in (
        ("standard deviation of the normalised grey values", found.sigma, seen.sigma),
        ("noise of the normalised grey values near Nyquist", found.noise_sigma, seen.noise_sigma),
    ):
        if (
            limits is not None
            and math.isfinite(value)
            and not limits[0] / GREY_FACTOR <= value <= limits[1] * GREY_FACTOR
        ):
            remarks.append(f"{name} {value:.3g}, {_range_text(limits)} in the training data")
    middle, reach = sum(seen.mean) / 2, abs(seen.mean[1] - seen.mean[0]) / 2 + GREY_FACTOR * seen.sigma[1]
    if abs(found.mean - middle) > reach:
        remarks.append(
            f"mean of the normalised grey values {found.mean:.3g}, {_range_text(seen.mean)} in the training data"
        )
    certain = {side: mean for side, (mean, spread) in seen.skewness.items() if abs(mean) > CERTAIN * spread}
    if _is_opposite(found, certain):
        side = max((side for side in certain if side in found.skewness), key=lambda side: abs(certain[side]))
        dark, bright = "dark particles on a brighter ground", "bright particles on a darker ground"
        its, theirs = (bright, dark) if seen.skewness[side][0] < 0 else (dark, bright)
        remarks.append(
            f"its contrast looks inverted: {its}, {theirs} in the training data (skewness {found.skewness[side]:+.2f} "
            f"against {seen.skewness[side][0]:+.2f} in blocks of {side} px); look at it: invert it if so, else train on such "
            "micrographs"
        )
    return remarks


def bright_particles_remark(found: Appearance) -> str:
    """Say that a micrograph shows bright particles, for a network that knows only dark ones; empty if it shows none.

    It is as careful as `unlike`. It was silent on 13 real micrographs (4 of them single frames) and 28 simulated ones, some with
    dirt. Inverted, it found 6 of these, no single frame, and all 8 simulated ones of 1024 pixels or more
    without dirt; it found none of the 14 smaller ones. `cryoplug.inference.second_look` finds more.
    """
    if not _is_opposite(found, dict.fromkeys(SCALES_PX, -1.0)):
        return ""
    side = max(found.skewness, key=lambda side: found.skewness[side])
    return (
        f"its contrast looks inverted: bright particles on a darker ground (skewness {found.skewness[side]:+.2f} in blocks of "
        f"{side} px), but the network knows dark ones; look at it, and invert it if so"
    )


def _relief(image: np.ndarray, side: int) -> np.ndarray:
    """Give means of blocks minus the mean of the blocks around; left-over pixels at the border are left out."""
    blocks = _block_means(image, side)
    around = _block_means(blocks, _SURROUNDINGS)
    height, width = (_SURROUNDINGS * length for length in around.shape)
    return blocks[:height, :width] - around.repeat(_SURROUNDINGS, 0).repeat(_SURROUNDINGS, 1)


def _block_means(image: np.ndarray, side: int) -> np.ndarray:
    height, width = (length // side for length in image.shape)
    blocks = image[: height * side, : width * side].reshape(height, side, width, side)
    return blocks.mean(axis=3).mean(axis=1) if blocks.size else np.empty((0, 0), np.float32)


def _skewness(reliefs: list[np.ndarray], of_noise: float, side: int) -> tuple[float, float] | None:
    """Give the skewness without that of the noise, and its standard error; None without blocks, or if all are equal."""
    values = _clipped(reliefs)
    if values is None:
        return None
    blocks = np.concatenate([part.ravel() for part in values])
    unit = float((blocks**2).mean()) ** 1.5
    if not unit > 0:
        return None
    cubes = [part**3 for part in values]
    third = float(np.concatenate([part.ravel() for part in cubes]).mean())
    # A sum of n independent pixels has n times their third cumulant, their mean 1 / n^2 of it.
    third -= of_noise * (_NOISE_PX / side) ** 4
    error = math.sqrt(6 / blocks.size)
    for parts in _INDEPENDENT:
        means = np.concatenate([_block_means(part, parts).ravel() for part in cubes])
        if means.size > 1:
            error = max(error, float(means.std(ddof=1)) / math.sqrt(means.size) / unit)
    return third / unit, error


def _third_moment(reliefs: list[np.ndarray]) -> float:
    values = _clipped([relief for relief in reliefs if relief.size])
    return 0.0 if values is None else float((np.concatenate([part.ravel() for part in values]) ** 3).mean())


def _clipped(reliefs: list[np.ndarray]) -> list[np.ndarray] | None:
    """Subtract the mean of the blocks, and clip them to `_CLIP` standard deviations; float64."""
    if not reliefs:
        return None
    blocks = np.concatenate([relief.ravel() for relief in reliefs])
    mean, limit = float(blocks.mean(dtype=np.float64)), _CLIP * float(blocks.std(dtype=np.float64))
    values = [np.clip(relief.astype(np.float64) - mean, -limit, limit) for relief in reliefs]
    left = float(np.concatenate([part.ravel() for part in values]).mean())
    return [part - left for part in values]


def _is_opposite(found: Appearance, expected: Mapping[int, float]) -> bool:
    """Say whether a micrograph shows signs opposite to the expected skewness, beyond chance, and nowhere the same sign."""
    both = [side for side in expected if side in found.skewness]
    return any(_shows_opposite(found, expected, side) for side in both) and all(
        _errors_against(found, expected, side) > NOT_AGAINST for side in both
    )


def _errors_against(found: Appearance, expected: Mapping[int, float], side: int) -> float:
    """Give the standard errors by which a micrograph shows the sign opposite to the expected skewness."""
    against = -math.copysign(1.0, expected[side]) * found.skewness[side]
    return against / found.skewness_error[side]


def _shows_opposite(found: Appearance, expected: Mapping[int, float], side: int) -> bool:
    """Say whether a micrograph shows the opposite sign in blocks of this side, beyond chance, and unlike noise."""
    sign = math.copysign(1.0, found.skewness[side])
    holds = all(
        sign * found.skewness[large] > part * sign * found.skewness[small]
        for (small, large), part in _HOLDS.items()
        if side in (small, large) and small in found.skewness and large in found.skewness
    )
    return holds and _errors_against(found, expected, side) > BEYOND_CHANCE


def _noise_power(image: np.ndarray) -> float | None:
    """Give the mean power per pixel in `NOISE_BAND`, from tiles under a Hann window; 1 for white noise of sigma 1."""
    height, width = (length // _TILE_PX for length in image.shape)
    if not height * width:
        return None
    tiles = image[: height * _TILE_PX, : width * _TILE_PX].reshape(height, _TILE_PX, width, _TILE_PX).swapaxes(1, 2)
    if min(height, width) >= _ENOUGH_TILES:
        tiles = tiles[::2, ::2]  # a quarter of them tells the power to a hundredth
    fade = np.hanning(_TILE_PX + 1)[:-1].astype(np.float32)
    window = fade[:, None] * fade[None]
    terms = np.fft.rfft2((tiles - tiles.mean(axis=(2, 3), keepdims=True)) * window)
    power = (np.abs(terms) ** 2).mean(axis=(0, 1)) / float((window.astype(np.float64) ** 2).sum())
    radius = np.hypot(np.fft.fftfreq(_TILE_PX)[:, None], np.fft.rfftfreq(_TILE_PX)[None])
    return float(power[(radius >= NOISE_BAND[0]) & (radius < NOISE_BAND[1])].mean())


def _root_mean_square(values: Sequence[float]) -> float:
    # Within the range also where rounding would carry it out of it.
    return min(max(math.sqrt(math.fsum(value**2 for value in values) / len(values)), min(values)), max(values))


def _range(values: Sequence[float]) -> tuple[float, float]:
    return float(min(values)), float(max(values))


def _range_text(limits: tuple[float, float]) -> str:
    return f"{limits[0]:.3g} to {limits[1]:.3g}"


def _two(values: Any) -> tuple[float, float]:
    one, two = values
    if not (math.isfinite(one) and math.isfinite(two)):
        raise ValueError("not finite")
    return float(one), float(two)
