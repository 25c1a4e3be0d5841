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


def test_bad_pixels_are_as_many_as_asked_and_the_others_are_as_they_were() -> None:
    plane = FrequencyPlane.of((500, 400), 2.6, "cpu")
    expected = torch.full(plane.shape, 1e4)

    def image(**faults: float) -> torch.Tensor:
        return recorded(expected, Camera(**faults), plane, torch.Generator().manual_seed(0))

    good, bad = image(), image(hot_pixels=1e-4, dead_pixels=2e-4)
    assert int((bad == 0).sum()) == 40 and float(good.min()) > 0
    assert int((bad > good).sum()) == 20
    assert int((bad != good).sum()) == 60
