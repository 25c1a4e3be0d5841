from __future__ import annotations

import numpy as np
import pytest

from cryoplug.errors import UsageError
from cryoplug.metrics.baselines import best_gaussian, gaussian_blur
from cryoplug.metrics.pixel import best_affine, correlation, mse


def test_blur_of_a_point_is_a_gaussian():
    image = np.zeros((65, 65))
    image[32, 32] = 1
    y, x = np.mgrid[:65, :65] - 32
    expected = np.exp(-(y**2 + x**2) / (2 * 2.5**2)) / (2 * np.pi * 2.5**2)
    assert np.allclose(gaussian_blur(image, 2.5), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (7, 31), (64, 65)])
def test_blur_keeps_shape_constant_images_and_zero_sigma(shape):
    image = np.random.default_rng(0).standard_normal(shape)
    assert np.allclose(gaussian_blur(np.full(shape, 3.0), 0.9), 3.0)
    assert np.allclose(gaussian_blur(image, 0), image, atol=1e-6)
    assert gaussian_blur(image, 0.9).shape == shape
    assert gaussian_blur(image, 0.9).dtype == np.float32


def test_blur_mirrors_at_the_border_instead_of_wrapping_around():
    image = np.zeros((64, 64))
    image[:, 32:] = 1
    blurred = gaussian_blur(image, 3)
    assert blurred[:, 0].max() < 1e-3
    assert blurred[:, -1].min() > 1 - 1e-3


def test_negative_sigma_is_refused():
    with pytest.raises(UsageError, match="allowed 0 to 8"):
        gaussian_blur(np.zeros((8, 9)), -1)


def test_best_gaussian_is_no_worse_than_any_other_width():
    rng = np.random.default_rng(1)
    truth = gaussian_blur(rng.standard_normal((160, 128)), 4) * 10
    noisy = truth + rng.standard_normal(truth.shape)
    sigma, image = best_gaussian(noisy, truth)
    assert np.allclose(image, gaussian_blur(noisy, sigma), atol=1e-5)

    def error(candidate):
        slope, offset = best_affine(candidate, truth)
        return mse(slope * candidate + offset, truth)

    for other in np.geomspace(0.3, 30, 25):
        assert error(image) <= error(gaussian_blur(noisy, other)) * (1 + 1e-6)
    assert correlation(image, truth) > correlation(noisy, truth) + 0.1


def test_best_gaussian_of_the_truth_itself_hardly_blurs():
    truth = np.random.default_rng(1).standard_normal((64, 64))
    assert best_gaussian(truth, truth)[0] == pytest.approx(0.3)
