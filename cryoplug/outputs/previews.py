"""A picture of each denoised micrograph: raw (low-passed), denoised, and removed, on one grey scale.

The removed part should be noise alone. Particles in the right panel are signal that denoising has taken away.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt

from cryoplug.core.micrograph import ImageF32, MicrographSource
from cryoplug.core.pixel_size import pixel_size_of_exposure
from cryoplug.core.thumbnail import BeforeAfter, SmallImage, thumbnail_of
from cryoplug.disk.atomic import write_bytes
from cryoplug.errors import SeveralImagesError
from cryoplug.formats.registry import open_micrograph
from cryoplug.outputs.pictures import CAPTION_PX, grey_bytes, jpeg, paste_text, resized

PREVIEW_FOLDER = "previews"
"""Folder of the previews, below the output folder."""
LOWPASS_ANGSTROM = 20.0
"""Resolution in angstrom at which the low pass of the raw micrograph halves amplitudes, as people filter before they pick."""
GAP_PX = 6
"""Pixels between two panels."""
STRIP_PX = 26
"""Height in pixels of the strip below the panels, which has their captions."""
_BACKGROUND, _INK = 24, 230
_SPARSE = 4
_SIGMAS = 3.0
_RAW_SHARE = 0.6
_FAR = 0.25
"""From here on a median is far from the middle, as a part of the span from black to white."""
_LONGEST_BAR = 0.3
"""Longest scale bar, as a part of a panel's width."""
_HALF_AT = math.sqrt(2 * math.log(2)) / (2 * math.pi)
"""A Gaussian of this sigma (angstrom, real space) halves amplitudes at a resolution of 1 angstrom."""


@dataclass(frozen=True, eq=False)
class Preview:
    """Three small images of one micrograph, equal in shape, ``(y, x)``, in its grey values."""

    raw: ImageF32
    """The raw micrograph, low-passed."""
    denoised: ImageF32
    """The result as it was written."""
    removed: ImageF32
    """The raw micrograph (averaged like the others, not low-passed) minus the denoised one."""
    pixel_size_angstrom: float | None
    """Pixel size of the small images; None if unknown."""
    target: str = "image"
    """What was written: ``image``, or ``particles`` alone; then ice belongs to what was removed."""

    @functools.cached_property
    def limits(self) -> tuple[float, float]:
        """Grey values of black and white, for raw and denoised (see `raw_limits`), so that equal greys are equal values.

        They lie 3 robust deviations below and above the median of the denoised image. If the raw image is much noisier,
        they lie farther apart, so that it is not just black and white. Ice and carbon change them only if they cover more
        than a quarter.
        """
        middle, sigma = _middle_and_sigma(self.denoised)
        half = _SIGMAS * max(sigma, _RAW_SHARE * _middle_and_sigma(self.raw)[1])
        return (middle - half, middle + half) if half > 0 else (middle - 0.5, middle + 0.5)

    @property
    def raw_limits(self) -> tuple[float, float]:
        """The same limits, unless the median of the raw image is far from their middle: then the same span around that.

        Particles lie at the mean of the micrograph. With an ice ball in it, that is not the grey level of its ice.
        """
        low, high = self.limits
        middle, _ = _middle_and_sigma(self.raw)
        if abs(middle - (low + high) / 2) <= _FAR * (high - low):
            return low, high
        return middle - (high - low) / 2, middle + (high - low) / 2

    @property
    def removed_limits(self) -> tuple[float, float]:
        """The same span of grey values, around the median of the removed part: a step of grey has the same size everywhere."""
        low, high = self.limits
        middle, _ = _middle_and_sigma(self.removed)
        return middle - (high - low) / 2, middle + (high - low) / 2

    def captions(self) -> tuple[str, str, str]:
        """Give the caption of each panel."""
        filtered = self.pixel_size_angstrom is not None and _is_finer(self.pixel_size_angstrom)
        first = f"raw, low-passed to {LOWPASS_ANGSTROM:g} A" if filtered else "raw, averaged"
        if self.target == "particles":
            return first, "particles", "removed (raw - particles): noise and ice"
        return first, "denoised", "removed (raw - denoised)"


def preview_name(target: PurePath) -> PurePath:
    """Name the picture of an output, given its path below the output folder: ``a/m.mrc`` gives ``previews/a/m.jpg``.

    Endings other than ``.mrc`` stay (``s.mrcs.jpg``), so that no two outputs share a picture.
    """
    stem = target.name.removesuffix(".mrc")
    name = target.name if PurePath(stem).suffix in (".mrcs", ".st", ".ali") else stem
    return PREVIEW_FOLDER / target.with_name(f"{name}.jpg")


def preview_of(both: BeforeAfter, pixel_size_angstrom: float | None, *, target: str = "image") -> Preview:
    """Make a preview of thumbnails.

    Parameters
    ----------
    both
        Raw and denoised; the denoised one is brought to the grid of the raw one.
    pixel_size_angstrom
        Pixel size of the raw micrograph; None if unknown.
    target
        What was written, ``image`` or ``particles``.
    """
    raw = both.raw.pixels
    denoised = _on_grid(both.denoised, both.raw)
    size = None if pixel_size_angstrom is None else pixel_size_angstrom * max(both.raw.steps)
    low_passed = raw if size is None or not _is_finer(size) else blurred(raw, _HALF_AT * LOWPASS_ANGSTROM / size)
    return Preview(low_passed, denoised, raw - denoised, size, target)


def preview_of_files(
    raw: Sequence[Path],
    denoised: Path,
    *,
    stated_angstrom: float | None = None,
    listed_angstrom: float | None = None,
    section: int | None = None,
    target: str = "image",
) -> Preview:
    """Read a micrograph and its denoised file, and make their preview.

    Parameters
    ----------
    raw
        The micrograph; or both halves, which are added.
    denoised
        The file that was written; of a stack, the first section is shown.
    stated_angstrom, listed_angstrom
        Pixel size as the user states it, and as the list says; see `cryoplug.core.pixel_size`.
    section
        Section of `raw`, from 1, from which `denoised` was made; None for the whole file.
    target
        What was written, ``image`` or ``particles``.

    Raises
    ------
    InputError
        One of the files cannot be read any more.
    """
    images, headers = [], []
    for path in raw:
        with _opened(path, section) as source:
            images.append(thumbnail_of(source))
            headers.append(source.pixel_size_angstrom)
    with _opened(denoised, None) as source:
        after = thumbnail_of(source)
    pixels = images[0].pixels
    for other in images[1:]:
        pixels = pixels + other.pixels
    known, _ = pixel_size_of_exposure(stated_angstrom, (listed_angstrom,), headers)
    return preview_of(BeforeAfter(SmallImage(pixels, images[0].shape), after), known.angstrom, target=target)


def draw_preview(preview: Preview) -> npt.NDArray[np.uint8]:
    """Draw the three panels side by side, each with a scale bar, and captions below; gives grey levels ``(y, x)``."""
    height, width = preview.raw.shape
    canvas = np.full((height + STRIP_PX, 3 * width + 2 * GAP_PX), _BACKGROUND, np.uint8)
    limits = preview.raw_limits, preview.limits, preview.removed_limits
    images = zip((preview.raw, preview.denoised, preview.removed), limits, strict=True)
    for place, ((image, (low, high)), caption) in enumerate(zip(images, preview.captions(), strict=True)):
        x = place * (width + GAP_PX)
        panel = canvas[:, x : x + width]
        panel[:height] = grey_bytes(image, low, high)
        paste_text(panel, caption, y=height + (STRIP_PX - CAPTION_PX) // 2, x=4, grey=_INK)
        if preview.pixel_size_angstrom is not None:
            draw_bar(panel[:height], preview.pixel_size_angstrom)
    return canvas


def write_preview(path: Path, preview: Preview) -> None:
    """Write the picture as a JPEG, atomically, but without waiting for the disk, because it can be made again.

    Raises
    ------
    StorageError
        The system refuses.
    """
    write_bytes(path, jpeg(draw_preview(preview)), durable=False)


def bar_length(width_px: int, pixel_size_angstrom: float) -> float:
    """Choose the length of a scale bar in angstrom: 1, 2 or 5 times a power of ten, up to 30 % of the width."""
    most = _LONGEST_BAR * width_px * pixel_size_angstrom
    power = 10.0 ** math.floor(math.log10(most))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= most * (1 + 1e-9))


def blurred(image: ImageF32, sigma_px: float) -> ImageF32:
    """Convolve with a Gaussian; beyond the border the image is continued by its mirror image."""
    reach = min(math.ceil(3 * sigma_px), min(image.shape) - 1)
    if reach < 1:
        return image
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (0, 1):
        image = _weighted(image, weights, axis)
    return image


def _weighted(image: ImageF32, weights: npt.NDArray[np.float32], axis: int) -> ImageF32:
    reach, length = len(weights) // 2, image.shape[axis]
    margins = [(reach, reach) if place == axis else (0, 0) for place in (0, 1)]
    padded = np.pad(image, margins, mode="reflect")
    result, part = np.zeros_like(image), np.empty_like(image)
    for shift, weight in enumerate(weights):
        # Into memory that is in cache already: half the time.
        result += np.multiply(
            weight, padded[shift : shift + length] if axis == 0 else padded[:, shift : shift + length], out=part
        )
    return result


def _middle_and_sigma(image: ImageF32) -> tuple[float, float]:
    """Give the median, and the standard deviation (from the quartiles) of the pixels that are not far from it."""
    # Every sixteenth pixel: 29,000 of a panel, whose percentiles differ from those of all by less than a grey level.
    sparse = image[::_SPARSE, ::_SPARSE]
    sparse = sparse[np.isfinite(sparse)]
    if not sparse.size:
        return 0.0, 0.0
    low, middle, high = (float(value) for value in np.percentile(sparse, (25, 50, 75)))
    return middle, (high - low) / 1.349


def _opened(path: Path, section: int | None) -> MicrographSource:
    try:
        return open_micrograph(path, section=section)
    except SeveralImagesError:
        return open_micrograph(path, section=1)


def _on_grid(small: SmallImage, wanted: SmallImage) -> ImageF32:
    """Bring a thumbnail to the grid of another one that shows the same field in other pixels."""
    if small.shape == wanted.shape and small.pixels.shape == wanted.pixels.shape:
        return small.pixels
    rows, columns = (
        wanted.pixels.shape[axis] * wanted.steps[axis] / wanted.shape[axis] * small.shape[axis] / small.steps[axis]
        for axis in (0, 1)
    )
    return resized(small.pixels, (wanted.pixels.shape[0], wanted.pixels.shape[1]), (rows, columns))


def _is_finer(pixel_size_angstrom: float) -> bool:
    """Say whether pixels of this size can show more detail than the low pass leaves."""
    return 2 * pixel_size_angstrom < LOWPASS_ANGSTROM


def draw_bar(panel: npt.NDArray[np.uint8], pixel_size_angstrom: float) -> None:
    """Draw a scale bar with its length into the lower left of a picture ``(y, x)``; a very small picture gets none."""
    height, width = panel.shape
    length = bar_length(width, pixel_size_angstrom)
    bar = max(1, round(length / pixel_size_angstrom))
    if height < 40 or width < 60:
        return
    text = f"{length:g} A" if length < 10_000 else f"{length / 10_000:g} um"
    y, x = height - 16, 12
    _shade(panel[y - 24 : y + 10, x - 6 : x + max(bar, 9 * len(text)) + 8])
    panel[y : y + 4, x : x + bar] = 255
    paste_text(panel, text, y=y - 18, x=x, grey=255)


def _shade(place: npt.NDArray[np.uint8]) -> None:
    """Darken the area behind letters, so that they can be read on white ice, too."""
    place[...] = place // 3
