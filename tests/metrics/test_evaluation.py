from __future__ import annotations

import numpy as np
import pytest

from cryoplug.errors import UsageError
from cryoplug.metrics.baseline_names import BASELINES
from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.metrics.evaluation import check_agreement, choose_directions, score_against_truth, score_halves
from cryoplug.simulation.micrograph import SimulationSettings, simulate_micrograph

RNG = np.random.default_rng(8)
NOISE = RNG.standard_normal((3, 128, 128))
TRUTH = 5 * gaussian_blur(RNG.standard_normal((128, 128)), 3)
EVEN, ODD = TRUTH + NOISE[0], TRUTH + NOISE[1]


@pytest.mark.parametrize(
    ("even", "odd", "has_odd", "wanted"),
    [
        (EVEN, ODD, True, ("even", "odd")),
        (EVEN, ODD, False, ("even",)),
        (EVEN, ODD + 3 * NOISE[2], True, ("even",)),
        (EVEN + 3 * NOISE[2], ODD, True, ("odd",)),
    ],
)
def test_the_less_noisy_half_is_denoised_or_both(even, odd, has_odd, wanted):
    assert choose_directions(even, odd, wanted="auto", has_odd=has_odd) == wanted


def test_a_direction_without_its_half_is_refused():
    with pytest.raises(UsageError, match="not at hand"):
        choose_directions(EVEN, ODD, wanted="both", has_odd=False)
    with pytest.raises(UsageError, match="allowed: auto"):
        choose_directions(EVEN, ODD, wanted="left", has_odd=True)


def test_all_methods_are_scored_on_the_same_data_and_a_blur_equals_the_baseline():
    report = score_halves((EVEN, ODD), (EVEN, ODD), ("even", "odd"))
    assert tuple(report.scores) == ("denoised", *BASELINES)
    for name in ("error", "correlation", "snr_fitted_db"):
        assert getattr(report.scores["denoised"], name) == pytest.approx(getattr(report.scores["identity"], name))
    assert report.scores["gaussian"].correlation > report.scores["identity"].correlation
    assert report.scores["affine"].correlation == pytest.approx(report.scores["identity"].correlation, rel=1e-3)
    assert report.scores["affine"].error < report.scores["identity"].error
    assert report.rings["wiener"].error.shape == report.frequency.shape


def test_both_directions_are_averaged():
    blurred = gaussian_blur(EVEN, 2), gaussian_blur(ODD, 2)
    reports = [score_halves((EVEN, ODD), blurred, way) for way in (("even",), ("odd",), ("even", "odd"))]
    errors = [report.scores["denoised"].error for report in reports]
    assert errors[2] == pytest.approx((errors[0] + errors[1]) / 2)


def test_the_truth_scores_all_methods_too():
    report = score_against_truth(EVEN, TRUTH, gaussian_blur(EVEN, 2))
    assert report.scores["wiener"].snr_db >= report.scores["gaussian"].snr_db > report.scores["identity"].snr_db
    assert report.scores["denoised"].snr_db <= report.scores["gaussian"].snr_db + 0.01
    assert report.frc["denoised"].shape == report.frequency.shape


def test_over_simulated_micrographs_the_error_without_truth_is_the_true_one():
    settings = SimulationSettings(size_px=384, pixel_size_angstrom=5.2, seed=3)
    told, true = [], []
    for index in range(4):
        item = simulate_micrograph(settings, index)
        raw = item.even, item.odd
        denoised = tuple(np.sqrt(np.maximum(gaussian_blur(image, 2.0), 0)) * 30 for image in raw)
        report = score_halves(raw, denoised, ("even", "odd"))
        agreement = check_agreement(raw, denoised, item.clean, report)
        told.append(agreement.truth_free_error)
        true.append(agreement.true_error)
    assert np.mean(told) == pytest.approx(np.mean(true), rel=0.05)
