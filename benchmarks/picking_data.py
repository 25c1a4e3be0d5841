"""Annotated real micrographs of apoferritin at three noise levels, from the public repository AutoCryoPicker.

The repository holds, as 16-bit PNG of 1240 x 1200 pixels of 1.5 angstrom, one frame and the plain mean of all frames of
20 movies of EMPIAR-10146 (CC0), and 19 pictures in which somebody painted a yellow disc on each particle. Noise is told
from specimen between 0.40 and 0.49 cycles per pixel: there the frame and the mean correlate by 0.154, as they must when
the frame is one of 42 (1 / sqrt(42)) and is in the mean without a shift. So the grey scales of the two PNGs can be
undone, the frame taken out of the mean, its drift of 0 to 4 pixels undone, and any noise level between 1 and 42 frames
mixed, with noise that a camera made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

PIXEL_SIZE_ANGSTROM = 1.5
FRAMES = 42
"""Frames in a mean, from the correlation of its noise with that of one frame; 40.3 to 44.4 in the twenty movies."""
LEVELS = {"all frames": FRAMES, "9 frames": 9, "1 frame": 1}
"""Name of a noise level, and the number of frames whose mean is as noisy."""
NOISE_BAND = (0.40, 0.49)
"""Cycles per pixel in which there is noise alone."""
MAX_DRIFT_PX = 6
DISC_RADIUS_PX = 30.5
"""Radius of the painted discs, pixels of the micrograph; the few pictures of half the size are enlarged first."""

Image64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AnnotatedMicrograph:
    """One micrograph at its noise levels, and where its particles are."""

    name: str
    """As in the names of its files."""
    shape: tuple[int, int]
    """Rows and columns."""
    pixels: Callable[[str], Image64]
    """Gives the pixels ``(y, x)`` at a level of noise, by its name."""
    centres: npt.NDArray[np.float64]
    """Centres of the particles, ``(n, 2)`` as ``(y, x)`` in pixels."""
    pixel_size_angstrom: float


def annotated_micrographs(folder: Path) -> Iterator[AnnotatedMicrograph]:
    """Give the micrographs that are annotated, by name.

    Parameters
    ----------
    folder
        A checkout of the repository, or its folder "cryo-EM Dataset".
    """
    if (folder / "cryo-EM Dataset").is_dir():
        folder = folder / "cryo-EM Dataset"
    painted = sorted((folder / "Apoferritin cryo-EM Ground Truth").glob("*.png"))
    if not painted:
        raise SystemExit(
            f"{folder}: no folder 'Apoferritin cryo-EM Ground Truth' with PNGs; give a checkout of the public "
            "repository jianlin-cheng/AutoCryoPicker"
        )
    for path in painted:
        name = path.name.split(".bin")[0]
        mean = grey(folder / "Apoferritin_cryo-EM_Dataset_after_averaging_EMAN2" / f"{name}.bin_avg.png")
        frame = grey(folder / "Apoferritin_cryo-EM_Dataset_without_averaging" / f"{name}.bin.png")
        levels = noise_levels(mean, frame)
        rows, columns = mean.shape
        centres = disc_centres(path, mean.shape)
        yield AnnotatedMicrograph(name, (rows, columns), levels.__getitem__, centres, PIXEL_SIZE_ANGSTROM)


def noise_levels(mean: Image64, frame: Image64) -> dict[str, Image64]:
    """Undo the grey scales, take the frame out of the mean, align it, and mix the two to each noise level.

    The unit is the standard deviation of the noise of one frame.
    """
    mean = (mean - mean.mean()) / (noise_deviation(mean) * np.sqrt(FRAMES))
    frame = (frame - frame.mean()) / noise_deviation(frame)
    others = (FRAMES * mean - frame) / (FRAMES - 1)
    drift = shift_between(others, frame)
    frame = np.roll(frame, (-drift[0], -drift[1]), (0, 1))
    found = {}
    for level, frames in LEVELS.items():
        # Of a w + b (1 - w) with variances v and 1, the one nearer to the mean of all: w v w + (1 - w)^2 = 1 / frames.
        variance = 1 / (FRAMES - 1)
        root = np.sqrt(max(0.0, 1 - (1 + variance) * (1 - 1 / frames)))
        weight = (1 + root) / (1 + variance) if frames > 1 else 0.0
        found[level] = weight * others + (1 - weight) * frame
    return found


def noise_deviation(image: Image64) -> float:
    """Give the standard deviation of the noise, were its spectrum flat at the level of `NOISE_BAND`."""
    power = np.abs(np.fft.rfft2(image - image.mean())) ** 2
    radius = frequencies(image.shape)
    inside = (radius >= NOISE_BAND[0]) & (radius < NOISE_BAND[1])
    return float(np.sqrt(power[inside].mean() / image.size))


def shift_between(reference: Image64, image: Image64) -> tuple[int, int]:
    """Give the whole pixels by which the specimen of an image lies further down and right, at most `MAX_DRIFT_PX`."""
    radius = frequencies(reference.shape)
    weight = np.exp(-0.5 * (radius / 0.03) ** 2) * (radius > 0.004)
    product = np.fft.rfft2(image) * np.fft.rfft2(reference).conj() * weight**2
    peak = np.fft.fftshift(np.fft.irfft2(product, reference.shape))
    centre = [side // 2 for side in reference.shape]
    window = peak[tuple(slice(at - MAX_DRIFT_PX, at + MAX_DRIFT_PX + 1) for at in centre)]
    y, x = np.unravel_index(window.argmax(), window.shape)
    return int(y) - MAX_DRIFT_PX, int(x) - MAX_DRIFT_PX


def frequencies(shape: tuple[int, ...]) -> Image64:
    """Give the radius in cycles per pixel of each term of ``rfft2``."""
    result: Image64 = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    return result


def disc_centres(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Find the yellow discs of a picture, also those that touch: peaks of the overlap with a disc a little smaller."""
    with Image.open(path) as picture:
        red, green, blue = np.moveaxis(np.asarray(picture.resize((shape[1], shape[0]))).astype(int), 2, 0)
    yellow = (red > 200) & (green > 200) & (blue < 60)
    reach = np.hypot(*np.mgrid[-30:31, -30:31])
    disc = (reach <= DISC_RADIUS_PX - 5).astype(float)
    # Mirrored at the border: half of a disc there is a whole one.
    padded = np.pad(yellow.astype(float), 40, mode="symmetric")
    kernel = np.zeros(padded.shape)
    kernel[:61, :61] = disc
    kernel = np.roll(kernel, (-30, -30), (0, 1))
    overlap = np.fft.irfft2(np.fft.rfft2(padded) * np.fft.rfft2(kernel), padded.shape)[40:-40, 40:-40] / disc.sum()
    overlap = ndimage.gaussian_filter(overlap, 1.5)
    peaks = (overlap == ndimage.maximum_filter(overlap, 2 * 17 + 1)) & (overlap > 0.75)
    return np.argwhere(peaks).astype(float)


def grey(path: Path) -> Image64:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(np.float64)
