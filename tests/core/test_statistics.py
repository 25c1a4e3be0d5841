"""Streaming statistics agree with numpy on the whole image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.statistics import scan_pixels

IMAGES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    elements=st.floats(-1e6, 1e6, width=32),
)


@given(IMAGES, st.integers(1, 4))
def test_moments_agree_with_numpy_for_any_band_height(pixels: np.ndarray, band_rows: int) -> None:
    found = scan_pixels(ArrayMicrograph(pixels), band_rows=band_rows)
    exact = pixels.astype(np.float64)
    assert (found.minimum, found.maximum) == (exact.min(), exact.max())
    assert found.mean == pytest.approx(exact.mean(), rel=1e-9, abs=1e-6)
    assert found.std == pytest.approx(exact.std(), rel=1e-6, abs=1e-6)
    assert (found.count, found.positive_count) == (pixels.size, np.count_nonzero(pixels > 0))
    assert found.is_constant == (exact.min() == exact.max())
    assert found.first_nonfinite is None


def test_deviation_survives_a_mean_far_above_it() -> None:
    pixels = (6802 + 8.9 * np.random.default_rng(0).standard_normal((300, 400))).astype(np.float32)
    found = scan_pixels(ArrayMicrograph(pixels), band_rows=7)
    assert found.std == pytest.approx(pixels.astype(np.float64).std(), rel=1e-9)


def test_pixels_that_are_not_finite_are_counted_and_located() -> None:
    pixels = np.zeros((600, 5), np.float32)
    pixels[0, 0] = 3
    pixels[301, 4] = np.nan
    pixels[301, 2] = -np.inf
    found = scan_pixels(ArrayMicrograph(pixels))
    assert (found.nonfinite_count, found.first_nonfinite) == (2, (301, 2))
    assert (found.minimum, found.maximum, found.positive_count) == (0, 3, 1)


def test_an_image_of_nan_has_no_moments() -> None:
    found = scan_pixels(ArrayMicrograph(np.full((3, 3), np.nan)))
    assert found.is_constant
    assert np.isnan([found.minimum, found.maximum, found.mean, found.std]).all()
