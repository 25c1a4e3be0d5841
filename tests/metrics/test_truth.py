from __future__ import annotations

import numpy as np
import pytest

from cryoplug.errors import PixelError, ShapeError
from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.metrics.pixel import best_affine, mse
from cryoplug.metrics.structure import ssim
from cryoplug.metrics.truth import fitted_snr_db, score_truth, truth_frc

RNG = np.random.default_rng(0)
TRUTH = gaussian_blur(RNG.standard_normal((128, 96)), 2) * 10
NOISY = TRUTH + RNG.standard_normal(TRUTH.shape)


def test_ssim_of_equal_images_is_one_and_of_opposite_ones_negative():
    assert ssim(TRUTH, TRUTH, data_range=1) == pytest.approx(1)
    centred = NOISY - NOISY.mean()
    assert ssim(100 - centred, 100 + centred, data_range=1) < -0.5


def test_ssim_of_constant_images_is_the_term_of_light_alone():
    # (2ab + c1) / (a^2 + b^2 + c1) with c1 = (0.01 * 2)^2.
    found = ssim(np.full((16, 16), 3.0), np.full((16, 16), 4.0), data_range=2)
    assert found == pytest.approx((24 + 4e-4) / (25 + 4e-4))


def test_ssim_agrees_with_the_formula_in_one_window():
    one, two = NOISY[:11, :11], TRUTH[:11, :11]
    line = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    weight = np.outer(line, line) / line.sum() ** 2
    mean_one, mean_two = (weight * one).sum(), (weight * two).sum()
    var_one, var_two = (weight * (one - mean_one) ** 2).sum(), (weight * (two - mean_two) ** 2).sum()
    cov = (weight * (one - mean_one) * (two - mean_two)).sum()
    c1, c2 = 0.05**2, 0.15**2
    wanted = (
        (2 * mean_one * mean_two + c1) * (2 * cov + c2) / (mean_one**2 + mean_two**2 + c1) / (var_one + var_two + c2)
    )
    assert ssim(one, two, data_range=5) == pytest.approx(wanted)


def test_ssim_refuses_what_it_cannot_judge():
    with pytest.raises(ShapeError, match="11 or more"):
        ssim(TRUTH[:10], TRUTH[:10], data_range=1)
    with pytest.raises(PixelError, match="above 0"):
        ssim(TRUTH, TRUTH, data_range=0)


def test_snr_is_variance_over_the_error_after_the_best_affine():
    slope, offset = best_affine(NOISY, TRUTH)
    wanted = 10 * np.log10(TRUTH.var() / mse(slope * NOISY + offset, TRUTH))
    assert score_truth(NOISY, TRUTH).snr_db == pytest.approx(wanted, rel=1e-4)
    assert score_truth(5 - 3 * NOISY, TRUTH).snr_db == pytest.approx(wanted, rel=1e-4)
    assert fitted_snr_db(0) == 0 and fitted_snr_db(1) == float("inf") and np.isnan(fitted_snr_db(float("nan")))


def test_a_score_states_its_range_and_agrees_with_its_parts():
    found = score_truth(NOISY, TRUTH)
    assert found.psnr_range == pytest.approx(np.ptp(TRUTH))
    assert found.mse == pytest.approx(1, rel=0.05)
    assert found.psnr_db == pytest.approx(10 * np.log10(np.ptp(TRUTH) ** 2 / found.mse))
    assert found.ssim == pytest.approx(ssim(NOISY, TRUTH, data_range=np.ptp(TRUTH)))
    assert found.correlation == pytest.approx(np.corrcoef(NOISY.ravel(), TRUTH.ravel())[0, 1])
    assert 0 < found.frc_05 < found.frc_0143 < 0.5


def test_the_truth_itself_never_falls_below_a_threshold():
    found = score_truth(TRUTH, TRUTH)
    assert np.isnan(found.frc_05) and np.isnan(found.frc_0143)
    assert np.allclose(truth_frc(TRUTH, TRUTH)[1], 1)
    assert found.snr_db > 100


def test_frc_crosses_where_signal_and_noise_say():
    # Band-limited truth, equally strong white noise in its band: FRC 1/sqrt(2) inside, none outside.
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None])
    rng = np.random.default_rng(1)
    truth = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((256, 256))) * (frequency < 0.25), s=(256, 256))
    found = score_truth(truth + rng.standard_normal((256, 256)), truth)
    assert found.frc_05 == pytest.approx(0.25, abs=0.01)


def test_a_constant_image_has_no_correlation_but_an_error():
    found = score_truth(np.full(TRUTH.shape, 2.0), TRUTH)
    assert np.isnan(found.correlation) and np.isnan(found.snr_db)
    assert found.mse == pytest.approx(np.mean((TRUTH - 2) ** 2), rel=1e-5)
