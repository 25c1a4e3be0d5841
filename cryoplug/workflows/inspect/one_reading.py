"""Compute everything that inspect shows of an image's pixels in one reading, shared with the format's validator."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryoplug.core.grey_scale import grey_scale_of_sorted
from cryoplug.core.hot_pixels import HotPixelFinder, limits_of_sorted
from cryoplug.core.micrograph import MicrographSource
from cryoplug.core.quantiles import sorted_finite
from cryoplug.core.sampled_rows import read_sampled_rows
from cryoplug.core.statistics import PixelStatistics, scan_pixels


class OneReading:
    """Called with an image, it reads the pixels; afterwards `summary` holds the values to show."""

    def __init__(self) -> None:
        self.summary: dict[str, Any] = {}
        """Values to show; empty until an image was read completely."""

    def __call__(self, source: MicrographSource) -> PixelStatistics:
        """Read all pixels once, and give their statistics; hot pixels are found but not repaired."""
        sampled = sorted_finite(read_sampled_rows(source))
        finder = HotPixelFinder(source.read_rows, source.shape, limits_of_sorted(sampled))
        statistics = scan_pixels(source, also=finder.add)
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
            **_grey_values(sampled, finder, statistics),
        }
        return statistics


def _grey_values(sampled: np.ndarray, finder: HotPixelFinder, statistics: PixelStatistics) -> dict[str, Any]:
    """Give the normalization that suits the image, and the number of hot pixels."""
    if statistics.nonfinite_count or statistics.is_constant:
        return {}
    found = grey_scale_of_sorted(sampled)
    if found is None:
        return {}
    return {"grey_scale": found.words, "hot_pixels": len(finder.hot())}
