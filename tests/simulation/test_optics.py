from __future__ import annotations

import numpy as np
import pytest

from cryoplug.simulation.optics import (
    Optics,
    electron_wavelength_angstrom,
    interaction_constant,
)
from tests.simulation.ctf_formula import contrast_transfer


@pytest.mark.parametrize(("voltage_kv", "wavelength"), [(80, 0.04176), (100, 0.03701), (200, 0.02508), (300, 0.01969)])
def test_wavelength_agrees_with_published_tables(voltage_kv, wavelength):
    assert electron_wavelength_angstrom(voltage_kv) == pytest.approx(wavelength, abs=1e-5)


@pytest.mark.parametrize(("voltage_kv", "sigma"), [(100, 9.244e-4), (200, 7.288e-4), (300, 6.526e-4)])
def test_interaction_constant_agrees_with_published_tables(voltage_kv, sigma):
    assert interaction_constant(voltage_kv) == pytest.approx(sigma, rel=1e-3)


@pytest.mark.parametrize("amplitude", [0.0, 0.07, 0.1, 0.5])
def test_ctf_at_zero_is_minus_the_amplitude_contrast(amplitude):
    optics = Optics(defocus_um=1.3, amplitude_contrast=amplitude)
    assert contrast_transfer(np.zeros(1), optics)[0] == pytest.approx(-amplitude)


@pytest.mark.parametrize("order", [1, 2, 5])
@pytest.mark.parametrize("defocus_um", [0.8, 2.0])
def test_ctf_without_aberration_is_zero_where_the_phase_is_a_multiple_of_pi(order, defocus_um):
    optics = Optics(defocus_um=defocus_um, spherical_aberration_mm=0, amplitude_contrast=0)
    zero = np.sqrt(order / (electron_wavelength_angstrom(300) * defocus_um * 1e4))
    around = contrast_transfer(np.array([zero * 0.999, zero, zero * 1.001]), optics)
    assert around[1] == pytest.approx(0, abs=1e-9)
    assert around[0] * around[2] < 0


def test_ctf_zeros_with_aberration_and_amplitude_contrast_solve_the_quadratic():
    optics = Optics(defocus_um=1.5, amplitude_contrast=0.1)
    wavelength, cs = electron_wavelength_angstrom(300), 2.7e7
    for order in (1, 2, 3):
        # pi/2 Cs l^3 s^2 - pi l dz s + (n pi - asin A) = 0 in s = f^2; the smaller root.
        a, b, c = np.pi / 2 * cs * wavelength**3, -np.pi * wavelength * 1.5e4, order * np.pi - np.arcsin(0.1)
        squared = (-b - np.sqrt(b * b - 4 * a * c)) / (2 * a)
        assert contrast_transfer(np.sqrt([squared]), optics)[0] == pytest.approx(0, abs=1e-9)


def test_ctf_is_negative_up_to_its_first_zero():
    optics = Optics(defocus_um=2.0)
    first_zero = np.sqrt(1 / (electron_wavelength_angstrom(300) * 2.0e4))
    assert np.all(contrast_transfer(np.linspace(0, 0.95 * first_zero, 50), optics) < 0)
