"""The error that halves tell without a truth is the true one, also of a denoiser that is not linear."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.metrics.halves import HalfImages, halves_moments
from cryoplug.simulation.micrograph import SimulatedMicrograph, SimulationSettings, simulate_micrograph

COUNT = 20


@pytest.fixture(scope="module")
def micrographs() -> list[SimulatedMicrograph]:
    settings = SimulationSettings(size_px=192, pixel_size_angstrom=6)
    return [simulate_micrograph(settings, index) for index in range(COUNT)]


def limited(image: np.ndarray) -> np.ndarray:
    """Dark spots stand out and bright ones are cut: what a network does, and no filter."""
    blurred = gaussian_blur(image, 2.0)
    middle, spread = float(blurred.mean()), float(blurred.std())
    return (middle + spread * np.minimum((blurred - middle) / spread, 0.5)).astype(np.float32)


def inventive(image: np.ndarray) -> np.ndarray:
    """A filter that also puts a spot of its own into every image, in the same place: bias that both halves share."""
    made = gaussian_blur(image, 2.0)
    made[40:60, 40:60] -= 60
    return made


@pytest.mark.parametrize("denoise", [limited, inventive, lambda image: gaussian_blur(image, 1.0)])
def test_over_twenty_micrographs_it_agrees_within_five_per_cent(
    micrographs: list[SimulatedMicrograph], denoise: Callable[[np.ndarray], np.ndarray]
) -> None:
    told, true = [], []
    for made in micrographs:
        for raw, judge in ((made.even, made.odd), (made.odd, made.even)):
            denoised = denoise(raw)
            told.append(float(halves_moments(HalfImages(raw, judge, denoised)).error))
            # The truth is that of the whole exposure, twice what a half shows.
            true.append(float(np.var(denoised - 0.5 * made.clean, dtype=np.float64)))
    assert np.mean(told) == pytest.approx(np.mean(true), rel=0.05)
    # And it tells one micrograph from another, not their mean alone.
    assert np.median(np.abs(np.array(told) / np.array(true) - 1)) < 0.15
