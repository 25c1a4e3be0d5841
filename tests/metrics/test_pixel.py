from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryoplug.errors import PixelError, ShapeError
from cryoplug.metrics.pixel import best_affine, correlation, mse, psnr

RNG = np.random.default_rng(0)
IMAGE, TRUTH = RNG.standard_normal((2, 33, 47)).astype(np.float32)


def test_mse_of_a_constant_shift_is_its_square():
    assert mse(TRUTH + np.float32(0.5), TRUTH) == pytest.approx(0.25, rel=1e-5)


def test_mse_does_not_lose_digits_on_a_large_offset():
    first = np.full((1000, 1000), 1e4, np.float32)
    assert mse(first + np.float32(0.25), first) == pytest.approx(0.0625)


def test_psnr_of_the_full_range_is_zero_and_of_a_tenth_is_twenty():
    assert psnr(np.ones((4, 4)), np.zeros((4, 4)), data_range=1) == pytest.approx(0)
    assert psnr(np.full((4, 4), 0.1), np.zeros((4, 4)), data_range=1) == pytest.approx(20)
    assert psnr(TRUTH, TRUTH, data_range=1) == float("inf")


def test_psnr_refuses_a_range_of_nothing():
    with pytest.raises(PixelError, match="above 0"):
        psnr(IMAGE, TRUTH, data_range=0.0)


def test_correlation_agrees_with_numpy():
    assert correlation(IMAGE, TRUTH) == pytest.approx(np.corrcoef(IMAGE.ravel(), TRUTH.ravel())[0, 1], abs=1e-6)
    assert correlation(-3 * TRUTH + 7, TRUTH) == pytest.approx(-1)


def test_correlation_of_a_constant_is_an_error():
    with pytest.raises(PixelError, match="constant"):
        correlation(np.ones((4, 4)), np.arange(16.0).reshape(4, 4))


@given(st.floats(-50, 50).filter(lambda a: abs(a) > 0.01), st.floats(-1000, 1000))
def test_best_affine_undoes_any_affine(slope, offset):
    image = (TRUTH.astype(np.float64) - offset) / slope
    assert best_affine(image, TRUTH) == pytest.approx((slope, offset), rel=1e-6, abs=1e-6)


def test_no_other_affine_is_closer_than_the_best():
    slope, offset = best_affine(IMAGE, TRUTH)
    best = mse(slope * IMAGE + offset, TRUTH)
    for step in (-0.1, 0.1):
        assert mse((slope + step) * IMAGE + offset, TRUTH) > best
        assert mse(slope * IMAGE + offset + step, TRUTH) > best


def test_best_affine_of_a_constant_is_the_mean():
    assert best_affine(np.ones((3, 3)), np.arange(9.0).reshape(3, 3)) == pytest.approx((0, 4))


@pytest.mark.parametrize("function", [mse, correlation, best_affine])
def test_different_shapes_are_refused_with_both_named(function):
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(3, 2\)"):
        function(np.zeros((2, 3)), np.zeros((3, 2)))
