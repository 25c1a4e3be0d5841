from __future__ import annotations

import numpy as np
import pytest

from cryoplug.simulation.detector import Detector, count_halves, expected_counts


def test_mtf_is_one_at_zero_falls_and_hits_nyquist():
    mtf = Detector(mtf_at_nyquist=0.4).modulation_transfer(np.linspace(0, 0.5, 50))
    assert mtf[0] == pytest.approx(1)
    assert mtf[-1] == pytest.approx(0.4)
    assert np.all(np.diff(mtf) < 0)


@pytest.mark.parametrize(("dose", "pixel"), [(40.0, 2.6), (1.5, 0.8)])
def test_mean_expected_counts_are_dose_times_pixel_area(dose, pixel):
    intensity = 0.9 + 0.05 * np.random.default_rng(0).standard_normal((64, 48))
    counts = expected_counts(intensity, Detector(), dose_e_per_angstrom2=dose, pixel_size_angstrom=pixel)
    assert counts.mean() == pytest.approx(dose * pixel**2)


def test_signal_of_one_wave_is_scaled_by_the_mtf():
    wave = 0.1 * np.cos(2 * np.pi * 16 * np.arange(64) / 64)[None, :] * np.ones((32, 1))
    counts = expected_counts(1 + wave, Detector(), dose_e_per_angstrom2=10, pixel_size_angstrom=1)
    mtf = Detector().modulation_transfer(np.array([0.25]))[0]
    assert np.allclose(counts, 10 * (1 + mtf * wave))


def test_counts_are_never_expected_below_zero():
    intensity = np.ones((32, 32))
    intensity[16, 16] = -50
    assert expected_counts(intensity, Detector(), dose_e_per_angstrom2=1, pixel_size_angstrom=1).min() >= 0


def test_halves_are_whole_counts_with_poisson_variance():
    even, odd = count_halves(np.full((400, 400), 12.0), np.random.default_rng(0))
    for half in (even, odd):
        assert half.dtype == np.float32
        assert np.all(half == np.round(half))
        assert half.mean() == pytest.approx(6, abs=5 * np.sqrt(6) / 400)
        assert half.var() == pytest.approx(6, rel=0.03)


def test_noise_is_white_and_independent_between_halves():
    expected = 20 + 5 * np.sin(np.arange(300))[None, :] * np.ones((300, 1))
    even, odd = count_halves(expected, np.random.default_rng(1))
    noise, other = even - expected / 2, odd - expected / 2
    bound = 4 / np.sqrt(noise.size)
    assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < bound
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < bound
