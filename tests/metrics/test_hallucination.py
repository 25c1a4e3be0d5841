from __future__ import annotations

import numpy as np
import pytest

from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.metrics.hallucination import hallucinate, noise_spectrum, synthesize_noise
from cryoplug.metrics.rings import Rings, spectrum

SHAPE = (256, 200)
RINGS = Rings.of(SHAPE)
RNG = np.random.default_rng(0)
TRUTH = 10 * gaussian_blur(RNG.standard_normal(SHAPE), 3)
COLOURED = [gaussian_blur(RNG.standard_normal(SHAPE), 0.7) for _ in range(2)]


def power(image):
    terms = spectrum(image, taper=True)
    return RINGS.cross(terms, terms)


@pytest.mark.parametrize("other_is_truth", [True, False])
def test_the_spectrum_of_the_noise_is_measured_without_the_signal(other_is_truth):
    other = 3 * TRUTH if other_is_truth else TRUTH + COLOURED[1]
    found = noise_spectrum(TRUTH + COLOURED[0], other, RINGS, other_is_truth=other_is_truth)
    assert found.sum() == pytest.approx(COLOURED[0].var(), rel=0.1)
    bands = [slice(10, 30), slice(30, 60), slice(60, 100)]
    for band in bands:
        assert found[band].sum() == pytest.approx(power(COLOURED[0])[band].sum(), rel=0.15)


def test_synthetic_noise_has_the_spectrum_and_nothing_of_the_image():
    noise = synthesize_noise(power(COLOURED[0]), RINGS, mean=7.0, seed=1)
    assert noise.mean() == pytest.approx(7, abs=1e-3)
    assert noise.std() == pytest.approx(COLOURED[0].std(), rel=0.05)
    assert power(noise)[30:60].sum() == pytest.approx(power(COLOURED[0])[30:60].sum(), rel=0.1)
    assert abs(np.corrcoef(noise.ravel(), COLOURED[0].ravel())[0, 1]) < 0.02
    assert np.array_equal(noise, synthesize_noise(power(COLOURED[0]), RINGS, mean=7.0, seed=1))


def test_identity_passes_all_noise_and_makes_no_structure():
    noise = synthesize_noise(np.full(len(RINGS.count), 0.01), RINGS, mean=0.0, seed=2)
    found, output = hallucinate(noise, lambda image: image, denoised=np.sqrt(2) * noise)
    assert found.output_std == pytest.approx(found.noise_std)
    assert found.share == pytest.approx(0.5, rel=1e-4)
    assert found.excess_kurtosis == pytest.approx(0, abs=0.1)
    assert np.array_equal(output, noise)


def test_invented_blobs_stand_out_and_a_blur_does_not():
    noise = np.random.default_rng(3).standard_normal(SHAPE).astype(np.float32)
    blurred, _ = hallucinate(noise, lambda image: gaussian_blur(image, 2), denoised=noise)
    blobs, _ = hallucinate(noise, lambda image: np.maximum(gaussian_blur(image, 2) - 0.3, 0), denoised=noise)
    assert abs(blurred.excess_kurtosis) < 0.3 < 3 < blobs.excess_kurtosis
    assert blurred.mean_frequency < 0.15


def test_white_noise_has_the_mean_frequency_of_a_square():
    noise = np.random.default_rng(3).standard_normal((256, 256)).astype(np.float32)
    found, _ = hallucinate(noise, lambda image: image, denoised=noise)
    # Mean distance from the middle of a unit square.
    assert found.mean_frequency == pytest.approx((np.sqrt(2) + np.log(1 + np.sqrt(2))) / 6, rel=0.02)


def test_a_denoiser_that_gives_a_constant_saw_nothing():
    noise = np.ones((16, 16), np.float32)
    found, _ = hallucinate(noise, lambda image: image, denoised=noise)
    assert found.output_std == 0 and np.isnan(found.share) and np.isnan(found.excess_kurtosis)


def test_a_frame_at_the_border_is_no_structure():
    def framed(image):
        result = image.copy()
        result[:3] = result[-3:] = 100
        return result

    noise = np.random.default_rng(3).standard_normal(SHAPE).astype(np.float32)
    found, _ = hallucinate(noise, framed, denoised=noise)
    assert found.output_std == pytest.approx(1, rel=0.02) and abs(found.excess_kurtosis) < 0.1
