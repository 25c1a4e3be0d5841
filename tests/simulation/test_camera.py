"""Noise of a camera: its mean, its variance and its skewness."""

from __future__ import annotations

import pytest
import torch

from cryoplug.simulation.camera import LEAST_SKEW, Camera, recorded
from cryoplug.simulation.planes import FrequencyPlane

EXPECTED = 9.0


@pytest.mark.parametrize("skew", [-0.4, 0.0, LEAST_SKEW / 2, 0.3, 1.0, 1.6])
def test_noise_is_as_skewed_as_asked_and_keeps_mean_and_variance(skew: float) -> None:
    plane = FrequencyPlane.of((1000, 1000), 2.6, "cpu")
    image = recorded(torch.full(plane.shape, EXPECTED), Camera(skew=skew), plane, torch.Generator().manual_seed(0))
    mean, variance = float(image.mean()), float(image.var())
    assert mean == pytest.approx(EXPECTED, abs=0.02)
    assert variance == pytest.approx(EXPECTED, rel=0.01)
    skewness = float((((image - mean) / variance**0.5) ** 3).mean())
    # Of counted electrons it is one over the root of their number.
    assert skewness == pytest.approx(skew / EXPECTED**0.5, abs=0.015)
