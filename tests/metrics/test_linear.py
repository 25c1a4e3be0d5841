from __future__ import annotations

import numpy as np
import pytest

from cryoplug.metrics.baseline_names import BASELINES
from cryoplug.metrics.baselines import best_gaussian, gaussian_blur
from cryoplug.metrics.linear import best_gaussian_sigma, fit_baselines
from cryoplug.metrics.pixel import best_affine, correlation, mse

RNG = np.random.default_rng(1)
TRUTH = 10 * gaussian_blur(RNG.standard_normal((256, 192)), 3)
EVEN, ODD = TRUTH + 2 * RNG.standard_normal((2, *TRUTH.shape)) + 40


def test_the_fast_search_finds_the_gaussian_that_the_plain_search_finds():
    for judge in (TRUTH, ODD):
        sigma = best_gaussian_sigma(EVEN, judge)
        plain, image = best_gaussian(EVEN, judge)
        assert sigma == pytest.approx(plain, rel=0.1)
        assert correlation(gaussian_blur(EVEN, sigma), judge) == pytest.approx(correlation(image, judge), rel=2e-3)


def test_no_other_gaussian_correlates_better():
    sigma = best_gaussian_sigma(EVEN, ODD)
    best = correlation(gaussian_blur(EVEN, sigma), ODD)
    for other in np.geomspace(0.4, 30, 20):
        assert correlation(gaussian_blur(EVEN, other), ODD) <= best * (1 + 2e-3)


@pytest.mark.parametrize("judge_is_truth", [True, False])
def test_every_baseline_brings_the_image_closer_to_the_judge(judge_is_truth):
    judge = TRUTH if judge_is_truth else ODD
    found = fit_baselines(EVEN, judge, judge_is_truth=judge_is_truth)
    assert tuple(found.filters) == BASELINES
    errors = {
        name: mse(apply(EVEN) - apply(EVEN).mean(), TRUTH - TRUTH.mean()) for name, apply in found.filters.items()
    }
    assert errors["identity"] > errors["affine"] > 2 * errors["gaussian"] > 1.5 * errors["wiener"]
    assert np.array_equal(found.filters["identity"](EVEN), EVEN.astype(np.float32))
    assert found.slope == pytest.approx(best_affine(EVEN, judge)[0])
    assert all(apply(EVEN).dtype == np.float32 for apply in found.filters.values())


def test_the_wiener_filter_of_the_truth_beats_every_radial_filter():
    wiener = fit_baselines(EVEN, TRUTH, judge_is_truth=True).filters["wiener"]
    best = mse(wiener(EVEN), TRUTH)
    for sigma in (1.5, 2, 2.5, 3, 4):
        slope, offset = best_affine(gaussian_blur(EVEN, sigma), TRUTH)
        assert mse(slope * gaussian_blur(EVEN, sigma) + offset, TRUTH) > best


def test_the_wiener_gain_of_white_signal_in_white_noise_is_the_known_one():
    rng = np.random.default_rng(3)
    truth = rng.standard_normal((256, 256))
    even, odd = truth + 2 * rng.standard_normal((2, 256, 256))
    wiener = fit_baselines(even, odd, judge_is_truth=False).filters["wiener"]
    slope, _ = best_affine(even, wiener(even))
    assert slope == pytest.approx(0.2, abs=0.02)  # 1 / (1 + 1/SSNR) with SSNR = 1/4
    assert correlation(even, wiener(even)) > 0.97


def test_the_wiener_filter_finds_nothing_where_the_halves_share_nothing():
    even, odd = np.random.default_rng(5).standard_normal((2, 256, 256))
    wiener = fit_baselines(even, odd, judge_is_truth=False).filters["wiener"]
    assert wiener(even).std() < 0.05


def test_the_wiener_filter_does_not_follow_the_noise_of_its_judge():
    rng = np.random.default_rng(7)
    even, odd = rng.standard_normal((2, 256, 256))
    even, odd = even + 0.02 * TRUTH.mean(), odd
    wiener = fit_baselines(even, odd, judge_is_truth=False).filters["wiener"]
    assert abs(np.mean((wiener(even) - wiener(even).mean()) * odd)) < 3e-4
