"""Compute everything that inspect shows of an image's pixels in one reading, shared with the format's validator."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryoplug.core.bad_border import BadBorder, SoundBorder
from cryoplug.core.grey_scale import grey_scale_of_sorted
from cryoplug.core.hot_pixels import HotPixelFinder, limits_of_sorted
from cryoplug.core.micrograph import ImageF32, MicrographSource
from cryoplug.core.quantiles import sorted_finite
from cryoplug.core.repairs import with_sound_border
from cryoplug.core.statistics import PixelStatistics, scan_pixels


class OneReading:
    """Called with an image, it reads the pixels; afterwards `summary` holds the values to show."""

    def __init__(self) -> None:
        self.summary: dict[str, Any] = {}
        """Values to show; empty until an image was read completely."""

    def __call__(self, source: MicrographSource) -> PixelStatistics:
        """Read all pixels once, and give their statistics; a bad border and hot pixels are found but not repaired."""
        sound, rows, border = with_sound_border(source)
        sampled = sorted_finite(rows)
        finder = HotPixelFinder(sound.read_rows, source.shape, limits_of_sorted(sampled))

        def find(start: int, rows: ImageF32) -> None:
            if isinstance(sound, SoundBorder):
                rows = rows.copy()
                sound.repair(rows, start)
            finder.add(start, rows)

        statistics = scan_pixels(source, also=find)
        self.summary = {
            "shape": list(source.shape),
            "dtype": source.dtype.name,
            "pixel_size_angstrom": source.pixel_size_angstrom,
            "minimum": statistics.minimum,
            "maximum": statistics.maximum,
            "mean": statistics.mean,
            "std": statistics.std,
            "positive_pixels": statistics.positive_count,
            "nonfinite_pixels": statistics.nonfinite_count,
            **_grey_values(sampled, finder, statistics, border),
        }
        return statistics


def _grey_values(
    sampled: np.ndarray, finder: HotPixelFinder, statistics: PixelStatistics, border: BadBorder
) -> dict[str, Any]:
    """Give the normalization that suits the image, the number of hot pixels, and the bad border if there is one."""
    if statistics.nonfinite_count or statistics.is_constant:
        return {}
    found = grey_scale_of_sorted(sampled)
    if found is None:
        return {}
    said = {"bad_border": border.words} if border else {}
    return {"grey_scale": found.words, "hot_pixels": len(finder.hot()), **said}
