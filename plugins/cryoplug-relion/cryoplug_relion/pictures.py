"""Small views of large micrographs, read in bands to save memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryoplug.core.micrograph import MicrographSource
from cryoplug.metrics.rings import Curve, Rings, spectrum

OVERVIEW_PX = 640
DETAIL_PX = 400
SPECTRUM_PX = 2048
_BAND_ROWS = 256
_RINGS = 128
_BORDER = 32

Image = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class View:
    """The pictures and curves of one micrograph for a page."""

    overview: Image
    """The whole image, averaged to fewer pixels."""
    detail: Image
    """The middle of the image, at full resolution."""
    frequency: Curve
    """Spatial frequencies in cycles per pixel, from the first ring to Nyquist."""
    power: Curve
    """Mean power of a Fourier term of the middle, at each frequency."""
    pixel_size_angstrom: float | None
    """Pixel size from the header in angstrom; None when unset."""


def view(source: MicrographSource) -> View:
    """Look at an opened micrograph."""
    middle = _middle(source, SPECTRUM_PX)
    rings = Rings.of(middle.shape, most=_RINGS)
    transform = spectrum(middle, taper=True)
    shown = rings.to_nyquist
    power = rings.cross(transform, transform)[shown] / rings.count[shown] * middle.size
    y, x = (max(0, (length - DETAIL_PX) // 2) for length in middle.shape)
    return View(
        overview=_overview(source),
        detail=middle[y : y + DETAIL_PX, x : x + DETAIL_PX],
        frequency=rings.frequency[shown],
        power=power,
        pixel_size_angstrom=source.pixel_size_angstrom,
    )


def grey_limits(image: Image) -> tuple[float, float]:
    """Give the grey values that are drawn black and white; half a percent of the pixels lies beyond each of them.

    The borders do not count, because zeros beyond the border leave a dark frame around a denoised image.
    """
    y, x = (length // _BORDER for length in image.shape)
    low, high = np.percentile(image[y : image.shape[0] - y, x : image.shape[1] - x], [0.5, 99.5])
    return float(low), float(high) if high > low else float(low) + 1


def _middle(source: MicrographSource, side: int) -> Image:
    height, width = (min(side, length) for length in source.shape)
    y, x = (source.shape[0] - height) // 2, (source.shape[1] - width) // 2
    return source.read_rows(y, y + height)[:, x : x + width].copy()


def _overview(source: MicrographSource) -> Image:
    height, width = source.shape
    step = -(-max(height, width) // OVERVIEW_PX)
    columns = max(width // step, 1)
    rows_at_a_time = max(_BAND_ROWS // step, 1) * step
    bands = []
    for start in range(0, max(height // step, 1) * step, rows_at_a_time):
        rows = source.read_rows(start, min(start + rows_at_a_time, max(height // step, 1) * step, height))
        rows = rows[:, : columns * step]
        tall, wide = min(step, rows.shape[0]), min(step, rows.shape[1])
        bands.append(rows.reshape(-1, tall, columns, wide).mean(axis=(1, 3)))
    return np.concatenate(bands)
