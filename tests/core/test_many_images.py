"""An image in memory is measured as one in a file is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cryoplug.core.many_images import MeasuredImage, statistics_of
from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.normalization import KINDS, fit_normalization, fit_to
from cryoplug.core.statistics import scan_pixels
from cryoplug.errors import PixelError

IMAGES = {
    "noise": np.random.default_rng(0).normal(5, 2, (64, 64)),
    "odd": np.random.default_rng(1).gamma(2, 1, (7, 13)),
    "far from zero": np.random.default_rng(2).normal(6800, 8, (40, 64)),
    "mostly equal": np.where(np.random.default_rng(3).random((50, 50)) < 0.001, 9.0, 1.0),
    "bytes": np.random.default_rng(4).poisson(3, (64, 64)),
    "two pixels": np.array([[1.0, 2.0]]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", IMAGES)
def test_the_normalization_is_that_of_a_file(kind: str, name: str) -> None:
    pixels = IMAGES[name].astype(np.float32)
    one, _ = fit_to(MeasuredImage(pixels, Path("m")), kind)
    other = fit_normalization(ArrayMicrograph(pixels), kind)
    assert one.kind == other.kind
    assert (one.offset, one.scale) == pytest.approx((other.offset, other.scale), rel=1e-5, abs=1e-7)
    assert (one.clip_low, one.clip_high) == (other.clip_low, other.clip_high)


@pytest.mark.parametrize("name", [*IMAGES, "nan"])
def test_the_statistics_are_those_of_a_file(name: str) -> None:
    pixels = IMAGES.get(name, IMAGES["noise"]).astype(np.float32)
    if name == "nan":
        pixels = pixels.copy()
        pixels[3, 5:] = np.nan
    one, other = statistics_of(pixels), scan_pixels(ArrayMicrograph(pixels))
    for field, value in dataclasses.asdict(other).items():
        assert getattr(one, field) == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value)


def test_nothing_above_zero_is_an_error() -> None:
    pixels = -np.abs(IMAGES["noise"]).astype(np.float32)
    with pytest.raises(PixelError, match="no pixel is above zero"):
        fit_to(MeasuredImage(pixels, Path("m")), "percentile")
