from __future__ import annotations

import numpy as np
import pytest

from cryoplug.errors import ShapeError
from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.metrics.halves import HalfImages, halves_moments, mean_moments, ring_moments
from cryoplug.metrics.rings import Rings

SIDE = 512
RNG = np.random.default_rng(4)
TRUTH = gaussian_blur(RNG.standard_normal((SIDE, SIDE)), 3) * 10
"""Variance about 0.88."""
NOISE = 2 * RNG.standard_normal((2, SIDE, SIDE))
EVEN, ODD = TRUTH + NOISE[0] + 50, TRUTH + NOISE[1] + 47
S = float(TRUTH.var())


def moments(function):
    return halves_moments(HalfImages(EVEN, ODD, function(EVEN), function(ODD)))


def true_error(image):
    return float(np.var(image - TRUTH))


@pytest.mark.parametrize("scale", [1.0, 0.5, -0.3])
def test_a_multiple_of_the_raw_half_has_the_noise_and_the_bias_that_are_known(scale):
    found = moments(lambda image: scale * image + 9)
    assert found.signal == pytest.approx(S, rel=0.05)
    assert found.noise_left == pytest.approx(4 * scale**2, rel=0.02)
    assert found.bias == pytest.approx((1 - scale) ** 2 * S, abs=0.03)
    assert found.error == pytest.approx(4 * scale**2 + (1 - scale) ** 2 * S, rel=0.05)
    assert found.error == pytest.approx(found.bias + found.noise_left)


@pytest.mark.parametrize(
    "function",
    [
        lambda image: gaussian_blur(image, 2),
        lambda image: 0.3 * gaussian_blur(image, 5),
        lambda image: np.tanh(0.3 * (gaussian_blur(image, 2) - image.mean())),
        lambda image: np.full(image.shape, 3.0),
    ],
    ids=["blur", "weak", "nonlinear", "constant"],
)
def test_the_error_without_truth_is_the_true_error(function):
    found = moments(function)
    wanted = true_error(function(EVEN))
    # Chance alone: var(Ro) / SIDE = 0.01 for each covariance.
    assert found.error == pytest.approx(wanted, abs=0.03)
    assert wanted > 0.1
    assert found.snr == pytest.approx(found.signal / found.error)
    assert found.psnr == pytest.approx(36 * found.snr)


def test_the_correlation_with_the_truth_is_found_and_gives_the_fitted_snr():
    blurred = gaussian_blur(EVEN, 2)
    wanted = float(np.corrcoef(blurred.ravel(), TRUTH.ravel())[0, 1])
    found = halves_moments(HalfImages(EVEN, ODD, 7 * blurred))
    assert found.truth_correlation == pytest.approx(wanted, abs=0.02)
    assert found.snr_fitted == pytest.approx(1 / (1 - found.truth_correlation**2))
    assert found.correlation == pytest.approx(np.corrcoef(blurred.ravel(), ODD.ravel())[0, 1])
    assert found.raw_correlation == pytest.approx(np.corrcoef(EVEN.ravel(), ODD.ravel())[0, 1])
    assert found.correlation_multiple == pytest.approx(found.correlation / found.raw_correlation)


def test_without_the_other_denoised_half_only_noise_and_bias_are_unknown():
    found = halves_moments(HalfImages(EVEN, ODD, gaussian_blur(EVEN, 2)))
    assert np.isnan(found.noise_left) and np.isnan(found.bias)
    assert found.error == moments(lambda image: gaussian_blur(image, 2)).error


def test_the_error_holds_when_the_halves_are_not_equally_noisy():
    loud = TRUTH + 4 * NOISE[1]
    blurred = gaussian_blur(EVEN, 2)
    found = halves_moments(HalfImages(EVEN, loud, blurred, gaussian_blur(loud, 2)))
    assert found.error == pytest.approx(true_error(blurred), abs=0.1 * S)
    assert found.truth_correlation == pytest.approx(np.corrcoef(blurred.ravel(), TRUTH.ravel())[0, 1], abs=0.06)


def test_the_residual_shows_removed_signal():
    kept = moments(lambda image: image - NOISE[0] if image is EVEN else image)
    assert kept.residual_correlation == pytest.approx(0, abs=4 / SIDE)
    assert kept.signal_removed == pytest.approx(0, abs=0.05)
    removed = moments(lambda image: np.zeros_like(image))
    assert removed.residual_correlation == pytest.approx(removed.raw_correlation)
    assert removed.signal_removed == pytest.approx(1)
    assert np.isnan(moments(lambda image: image).residual_correlation)


def test_a_network_that_ignores_its_input_gains_nothing():
    picture = gaussian_blur(np.random.default_rng(9).standard_normal((SIDE, SIDE)), 4)
    found = moments(lambda image: picture)
    assert np.corrcoef(picture.ravel(), picture.ravel())[0, 1] == pytest.approx(1)  # what the two halves agree by
    assert abs(found.correlation) < 0.03
    assert found.error > 0.98 * S
    assert found.snr_fitted == pytest.approx(1, abs=0.02)


def test_rings_sum_to_the_whole_and_show_the_known_curve():
    blurred = [gaussian_blur(image, 1) for image in (EVEN, ODD)]
    images = HalfImages(EVEN, ODD, *reversed(blurred[::-1]))
    rings = Rings.of((SIDE, SIDE), most=32)
    whole, parts = halves_moments(images), ring_moments(images, rings, taper=False)
    for name in ("signal", "error", "bias", "noise_left", "denoised_variance", "across"):
        assert np.sum(getattr(parts, name)) == pytest.approx(getattr(whole, name), rel=1e-4, abs=1e-6)
    gain = np.exp(-2 * np.pi**2 * rings.frequency**2)
    noise = 4 * gain**2 * rings.count / SIDE**2
    curve = slice(4, 17)
    assert np.asarray(parts.noise_left)[curve] == pytest.approx(noise[curve], rel=0.25)


def test_the_truth_correlation_in_rings_is_that_of_the_known_spectra():
    # White signal of variance 1, white noise of variance 4: no radial filter changes a ring's correlation, 1/sqrt(5).
    rng = np.random.default_rng(6)
    truth = rng.standard_normal((SIDE, SIDE))
    even, odd = truth + 2 * rng.standard_normal((2, SIDE, SIDE))
    rings = Rings.of((SIDE, SIDE), most=8)
    found = ring_moments(HalfImages(even, odd, gaussian_blur(even, 0.5)), rings, taper=False)
    assert np.asarray(found.truth_correlation)[2:9] == pytest.approx(5**-0.5, abs=0.06)
    frc = np.asarray(found.correlation) / np.sqrt(np.asarray(found.raw_correlation))
    assert frc[2:9] == pytest.approx(np.asarray(found.truth_correlation)[2:9], rel=0.05)


def test_halves_without_common_signal_give_no_snr():
    one, two = np.random.default_rng(1).standard_normal((2, 64, 64))
    found = halves_moments(HalfImages(one, -one + 0.1 * two, one))
    assert found.signal < 0
    assert np.isnan(found.truth_correlation) and np.isnan(found.snr_fitted)


def test_moments_are_averaged_field_by_field():
    one, two = moments(lambda image: image), moments(lambda image: 0 * image)
    assert mean_moments([one, two]).error == pytest.approx((one.error + two.error) / 2)


def test_different_shapes_are_refused():
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        HalfImages(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((3, 2)))
