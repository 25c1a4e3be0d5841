"""Normalization: the founding recipe, robustness, inversion and storage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.normalization import KINDS, Normalization, clipped_fraction, fit_normalization
from cryoplug.errors import FormatError, PixelError, UsageError


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(5, 3, (120, 90)).astype(np.float32)


def test_percentile_is_the_founding_recipe_to_the_bit() -> None:
    pixels = image()
    expected = np.clip(pixels / np.float32(np.percentile(pixels[pixels > 0], 95)), 0, 1)
    found = fit_normalization(ArrayMicrograph(pixels), "percentile").apply(pixels)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


def test_zscore_gives_zero_mean_and_unit_deviation() -> None:
    pixels = image()
    found = fit_normalization(ArrayMicrograph(pixels), "zscore").apply(pixels)
    assert abs(found.mean()) < 0.01
    assert found.std() == pytest.approx(1, abs=0.02)


def test_a_hot_pixel_does_not_move_any_normalization() -> None:
    pixels = image()
    hot = pixels.copy()
    hot[7, 8] = 1e6
    for kind in ("percentile", "zscore"):
        clean, dirty = (fit_normalization(ArrayMicrograph(one), kind) for one in (pixels, hot))
        assert dirty.scale == pytest.approx(clean.scale, rel=0.01)
        assert dirty.offset == pytest.approx(clean.offset, rel=0.01)
    assert fit_normalization(ArrayMicrograph(hot), "zscore").apply(hot).max() == 20


def test_zscore_of_an_image_with_few_different_pixels_still_scales() -> None:
    pixels = np.zeros((100, 100), np.float32)
    pixels[3, 3] = 1
    normalization = fit_normalization(ArrayMicrograph(pixels), "zscore")
    assert normalization.scale == pytest.approx(pixels.std(), rel=1e-5)


def test_none_changes_nothing_and_copies() -> None:
    pixels = image()
    normalization = fit_normalization(ArrayMicrograph(pixels), "none")
    assert normalization == Normalization("none")
    assert np.array_equal(normalization.apply(pixels), pixels)
    assert normalization.apply(pixels) is not pixels


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_inversion_gives_back_what_was_not_clipped(offset: float, scale: float) -> None:
    pixels = image()
    normalization = Normalization("zscore", offset=offset, scale=scale)
    back = normalization.invert(normalization.apply(pixels))
    assert np.allclose(back, pixels, atol=1e-5 * (abs(offset) + 10), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_survives_json(kind: str) -> None:
    normalization = fit_normalization(ArrayMicrograph(image()), kind)
    assert Normalization.from_dict(json.loads(json.dumps(normalization.to_dict()))) == normalization


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_refused_with_count_and_place(kind: str, bad: float) -> None:
    pixels = image()
    pixels[5, 6] = pixels[9, 1] = bad
    with pytest.raises(PixelError, match=r"a\.mrc: 2 of 10800 pixels are NaN or infinite, the first at .* = \(5, 6\)"):
        fit_normalization(ArrayMicrograph(pixels, Path("a.mrc")), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_image_is_refused_with_its_value(kind: str) -> None:
    with pytest.raises(PixelError, match=r"a\.mrc: all 16 pixels are 7; "):
        fit_normalization(ArrayMicrograph(np.full((4, 4), 7), Path("a.mrc")), kind)


def test_percentile_without_a_positive_pixel_says_what_else_to_use() -> None:
    with pytest.raises(PixelError, match=r"no pixel is above zero.*--normalize zscore"):
        fit_normalization(ArrayMicrograph(-np.abs(image())), "percentile")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"kind": "minmax"}, "kind is 'minmax'; allowed: percentile, zscore, robust, none"),
        ({"kind": "zscore", "scale": 0.0}, "scale is 0.0"),
        ({"kind": "zscore", "scale": float("nan")}, "scale is nan"),
        ({"kind": "zscore", "offset": "3"}, "offset is '3'; allowed: a number"),
        ({"kind": "zscore", "clip_low": 1, "clip_high": 0}, "low below high"),
        ({"kind": "zscore", "gain": 1}, "unknown fields gain"),
        ({"scale": 1.0}, "no field kind"),
        ({"kind": ["zscore"]}, "kind is"),
        ([], "allowed: an object"),
    ],
)
def test_a_damaged_record_is_refused_by_field(record: dict, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        Normalization.from_dict(record)
    assert message in str(caught.value)


def test_an_unknown_kind_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="'minmax'; allowed: percentile, zscore, robust, none"):
        fit_normalization(ArrayMicrograph(image()), "minmax")


def test_clipped_fraction_counts_what_apply_clips() -> None:
    pixels = image()
    source = ArrayMicrograph(pixels)
    normalization = fit_normalization(source, "percentile")
    expected = np.mean((pixels < 0) | (pixels > np.float32(normalization.scale)))
    assert clipped_fraction(source, normalization) == pytest.approx(expected, abs=2e-4)
    assert clipped_fraction(source, Normalization("none")) == 0


def test_robust_takes_median_and_half_the_distance_of_one_deviation_on_both_sides() -> None:
    pixels = image()
    low, centre, high = np.quantile(pixels, (0.1587, 0.5, 0.8413))
    found = fit_normalization(ArrayMicrograph(pixels), "robust")
    assert found.offset == pytest.approx(centre, rel=1e-6)
    assert found.scale == pytest.approx((high - low) / 2, rel=1e-6)
    assert found.scale == pytest.approx(pixels.std(), rel=0.03)


@pytest.mark.parametrize("value", [1e4, -1e4, 1e30])
def test_a_hundred_hot_or_dead_pixels_do_not_move_robust_and_stay_what_they_are(value: float) -> None:
    pixels = np.random.default_rng(0).normal(5, 3, (400, 400)).astype(np.float32)
    hot = pixels.copy()
    hot.ravel()[:: hot.size // 100] = value
    clean, dirty = (fit_normalization(ArrayMicrograph(one), "robust") for one in (pixels, hot))
    assert dirty.scale == pytest.approx(clean.scale, rel=0.003)
    assert dirty.offset == pytest.approx(clean.offset, abs=0.003 * clean.scale)
    seen = dirty.apply(hot)
    assert np.isfinite(seen).all()
    if abs(value) < 1e5:
        np.testing.assert_allclose(dirty.invert(seen), hot, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("depth", [3.0, 30.0, 3000.0])
def test_ice_or_gold_over_a_tenth_moves_robust_by_a_bounded_part_however_dark_it_is(depth: float) -> None:
    pixels = np.random.default_rng(0).normal(0, 1, (400, 400)).astype(np.float32)
    dark = pixels.copy()
    dark[:40] -= depth
    robust, zscore = (fit_normalization(ArrayMicrograph(dark), kind) for kind in ("robust", "zscore"))
    assert abs(robust.offset) < 0.16
    assert 0.97 < robust.scale < 1.26
    if depth > 5:
        assert zscore.scale > 0.25 * depth, "which is why it is not enough"


def test_robust_of_an_image_that_is_mostly_one_value_still_scales() -> None:
    pixels = np.zeros((100, 100), np.float32)
    pixels[:, :25] = image()[:100, :25]
    found = fit_normalization(ArrayMicrograph(pixels), "robust")
    assert 0.5 * pixels.std() < found.scale < 2 * pixels.std()
    one = np.zeros((100, 100), np.float32)
    one[3, 3] = 1
    assert fit_normalization(ArrayMicrograph(one), "robust").scale == pytest.approx(one.std(), rel=1e-5)
