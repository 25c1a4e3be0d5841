"""Textures: Gaussian fields of any spectrum, in which no place is special."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryoplug.simulation.planes import FrequencyPlane
from cryoplug.simulation.texture import Spectrum, random_spectrum, texture

PLANE = FrequencyPlane.of((512, 512), 3.0, "cpu")


def power_at(image: torch.Tensor, period_angstrom: float) -> float:
    """Mean power of periods within a tenth of this one."""
    ratio = PLANE.length * period_angstrom
    chosen = (ratio > 0.9) & (ratio < 1.1)
    return float(PLANE.forward(image).abs().square()[chosen].mean())


@pytest.mark.parametrize("slope", [0.0, 1.5, 4.0])
def test_the_power_falls_by_the_slope_below_the_longest_period(slope):
    drawn = texture(Spectrum(slope, longest_angstrom=400), PLANE, torch.Generator().manual_seed(0))
    # Between periods of 100 and 25 angstrom the slope is that of the power law within a few hundredths.
    assert power_at(drawn, 100) / power_at(drawn, 25) == pytest.approx(4**slope, rel=0.25)


def test_a_bump_raises_one_period_and_a_blur_takes_the_short_ones():
    plain, raised, blurred = (
        texture(Spectrum(1.0, bump_angstrom=60, bump_height=height, blur_angstrom=blur), PLANE, torch.Generator())
        for height, blur in ((0, 0), (10, 0), (0, 10))
    )
    assert power_at(raised, 60) / power_at(raised, 300) > 6 * power_at(plain, 60) / power_at(plain, 300)
    assert power_at(blurred, 20) / power_at(blurred, 100) < 0.02 * power_at(plain, 20) / power_at(plain, 100)


@pytest.mark.parametrize("number", range(12))
def test_a_texture_of_any_spectrum_has_rms_one_and_is_bright_as_often_as_dark(number):
    generator = torch.Generator().manual_seed(number)
    drawn = texture(random_spectrum(np.random.default_rng(number)), PLANE, generator)
    assert bool(drawn.isfinite().all())
    assert float(drawn.mean()) == pytest.approx(0, abs=1e-4)
    assert float(drawn.std()) == pytest.approx(1, rel=1e-3)
    # The longest ones have a few waves in the field: their skewness varies by some tenths.
    assert abs(float(drawn.pow(3).mean())) < 0.6
