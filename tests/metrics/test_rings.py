from __future__ import annotations

import numpy as np
import pytest

from cryoplug.errors import ShapeError, UsageError
from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.metrics.rings import Rings, apply_radial, crossing, ring_correlation, spectrum

SHAPES = [(4, 4), (16, 16), (17, 31), (64, 33), (30, 64)]


def images(shape: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    one, two = np.random.default_rng(seed).standard_normal((2, *shape))
    return one + 5, 0.5 * one + two - 3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("most", [3, 256])
def test_rings_together_hold_every_term_and_the_whole_covariance(shape, most):
    rings = Rings.of(shape, most=most)
    one, two = images(shape)
    assert rings.count.sum() == shape[0] * shape[1]
    covariance = np.mean((one - one.mean()) * (two - two.mean()))
    assert rings.cross(spectrum(one), spectrum(two)).sum() == pytest.approx(covariance, rel=1e-10)


def test_a_wave_lies_in_the_ring_of_its_frequency():
    y, x = np.mgrid[:64, :64]
    for period, wave in ((8, np.cos(2 * np.pi * x / 8)), (4, np.cos(2 * np.pi * y / 4)), (2, (-1.0) ** x)):
        rings = Rings.of((64, 64))
        power = rings.cross(spectrum(wave), spectrum(wave))
        assert rings.frequency[np.argmax(power)] == pytest.approx(1 / period)
        assert power.max() == pytest.approx(np.var(wave))


def test_the_curve_ends_at_nyquist_of_the_shorter_side():
    rings = Rings.of((40, 64))
    assert rings.frequency[rings.to_nyquist][[0, -1]] == pytest.approx([1 / 40, 0.5])
    assert rings.frequency[-1] > 0.5


def test_tapered_white_noise_keeps_its_variance_and_a_gradient_loses_its_cross():
    rings = Rings.of((256, 256))
    noise = 3 * np.random.default_rng(2).standard_normal((256, 256))
    terms = spectrum(noise, taper=True)
    assert rings.cross(terms, terms).sum() == pytest.approx(9, rel=0.03)
    slope = np.add.outer(np.arange(256.0), np.arange(256.0))
    high = slice(64, None)
    plain, faded = (rings.cross(item, item)[high].sum() for item in (spectrum(slope), spectrum(slope, taper=True)))
    assert faded < 1e-3 * plain


def test_ring_correlation_is_one_for_a_multiple_and_the_known_one_for_added_noise():
    rings = Rings.of((256, 256), most=16)
    rng = np.random.default_rng(3)
    signal, first, second = rng.standard_normal((3, 256, 256))
    same, noisy, other = (spectrum(image) for image in (signal, signal + first, signal + second))
    power = rings.cross(same, same)
    assert np.allclose(ring_correlation(rings.cross(-2 * same, same), 4 * power, power)[1:], -1)
    # S/N of 1 in both: FRC 1/2.
    found = ring_correlation(rings.cross(noisy, other), rings.cross(noisy, noisy), rings.cross(other, other))
    assert found[4:16] == pytest.approx(0.5, abs=0.06)
    assert np.isnan(ring_correlation(np.zeros(2), np.array([0.0, 1.0]), np.ones(2))).tolist() == [True, False]


def test_crossing_is_found_between_rings():
    frequency, curve = np.array([0.1, 0.2, 0.3, 0.4]), np.array([1.0, 0.75, np.nan, 0.25])
    assert crossing(frequency, curve, 0.5) == pytest.approx(0.3)
    assert np.isnan(crossing(frequency, curve, 0.143))
    assert crossing(frequency, curve, 1.5) == pytest.approx(0.1)


def test_a_radial_gain_filters_each_frequency_and_keeps_the_mean():
    rings = Rings.of((64, 48), most=64)
    y, x = np.mgrid[:64, :48]
    slow, fast = np.cos(2 * np.pi * y / 16), np.cos(2 * np.pi * x / 4)
    gain = np.where(rings.frequency < 0.2, 0.5, 2.0)
    assert np.allclose(apply_radial(slow + fast + 7, gain, rings), 0.5 * slow + 2 * fast + 7, atol=1e-5)
    noise = images((64, 48))[0]
    assert np.allclose(apply_radial(noise, np.ones(len(rings.count)), rings), noise, atol=1e-5)


def test_a_radial_gain_agrees_with_the_gaussian_blur_away_from_the_border():
    noise = images((96, 96))[0]
    rings = Rings.of((96, 96), most=96)
    gain = np.exp(-2 * np.pi**2 * 4 * rings.frequency**2)
    inside = (slice(16, -16),) * 2
    assert np.allclose(apply_radial(noise, gain, rings)[inside], gaussian_blur(noise, 2)[inside], atol=0.02)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match=r"\(3, 9\)"):
        Rings.of((3, 9))
    rings = Rings.of((8, 8))
    with pytest.raises(UsageError, match="2 gains"):
        apply_radial(np.zeros((8, 8)), np.ones(2), rings)
    with pytest.raises(ShapeError, match=r"\(8, 9\).*\(8, 8\)"):
        apply_radial(np.zeros((8, 9)), np.ones(len(rings.count)), rings)
