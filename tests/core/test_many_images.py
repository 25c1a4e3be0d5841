"""Images in memory, measured all at once, are measured as files are one by one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cryoplug.core.hot_pixels import grey_limits
from cryoplug.core.many_images import MeasuredImage, apply_many, invert_many, measure_many
from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.normalization import KINDS, Normalization, clipped_fraction, fit_normalization, fit_to
from cryoplug.core.sampled_rows import sampled_rows
from cryoplug.core.statistics import scan_pixels
from cryoplug.errors import PixelError

IMAGES = {
    "noise": np.random.default_rng(0).normal(5, 2, (64, 64)),
    "odd": np.random.default_rng(1).gamma(2, 1, (7, 13)),
    "taller than what is sampled": np.random.default_rng(7).normal(0, 1, (130, 65)),
    "far from zero": np.random.default_rng(2).normal(6800, 8, (40, 64)),
    "mostly equal": np.where(np.random.default_rng(3).random((50, 50)) < 0.001, 9.0, 1.0),
    "bytes": np.random.default_rng(4).poisson(3, (64, 64)),
    "two pixels": np.array([[1.0, 2.0]]),
}


def _measured(pixels: np.ndarray) -> MeasuredImage:
    """Measure an image between two others, which must not matter."""
    others = np.random.default_rng(9).normal(100, 1, (2, *pixels.shape)).astype(np.float32)
    return measure_many(np.stack([others[0], pixels, others[1]]), Path("m"))[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", IMAGES)
def test_the_normalization_is_that_of_a_file(kind: str, name: str) -> None:
    pixels = IMAGES[name].astype(np.float32)
    measured = _measured(pixels)
    one = fit_to(measured, kind)
    other = fit_normalization(ArrayMicrograph(pixels), kind)
    assert one.kind == other.kind
    assert (one.offset, one.scale) == pytest.approx((other.offset, other.scale), rel=1e-5, abs=1e-7)
    assert (one.clip_low, one.clip_high) == (other.clip_low, other.clip_high)
    if kind == "percentile":
        assert measured.part_outside(0, one.scale) == clipped_fraction(ArrayMicrograph(pixels), one)


@pytest.mark.parametrize("name", [*IMAGES, "nan", "infinite"])
def test_the_statistics_are_those_of_a_file(name: str) -> None:
    pixels = IMAGES.get(name, IMAGES["noise"]).astype(np.float32)
    if name not in IMAGES:
        pixels = pixels.copy()
        pixels[3, 5:] = np.nan if name == "nan" else -np.inf
    one, other = _measured(pixels).statistics(), scan_pixels(ArrayMicrograph(pixels))
    for field, value in dataclasses.asdict(other).items():
        assert getattr(one, field) == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value)


@pytest.mark.parametrize("name", IMAGES)
def test_the_limits_of_hot_pixels_are_those_of_a_file(name: str) -> None:
    pixels = IMAGES[name].astype(np.float32)
    assert _measured(pixels).limits == grey_limits(pixels[sampled_rows(len(pixels))])


def test_nothing_above_zero_is_an_error() -> None:
    pixels = -np.abs(IMAGES["noise"]).astype(np.float32)
    with pytest.raises(PixelError, match="no pixel is above zero"):
        fit_to(_measured(pixels), "percentile")


@pytest.mark.parametrize("kind", KINDS)
def test_many_are_normalised_to_the_bits_of_one(kind: str) -> None:
    images = np.random.default_rng(5).gamma(2, 3, (5, 8, 9)).astype(np.float32)
    images[1] *= 1e30  # far beyond what is clipped
    each: list[Normalization] = [fit_to(item, kind) for item in measure_many(images, Path("m"))]
    each[2] = dataclasses.replace(each[2], offset=0.0, scale=1.0) if kind in ("zscore", "robust") else each[2]
    applied = [one.apply(image) for one, image in zip(each, images, strict=True)]
    assert np.array_equal(apply_many(each, images), applied)
    inverted = [one.invert(image) for one, image in zip(each, applied, strict=True)]
    assert np.array_equal(invert_many(each, np.array(applied)), inverted)
