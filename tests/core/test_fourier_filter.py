"""Laws of the Gaussian filters of a result."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryoplug.core.fourier_filter import filtered_image
from cryoplug.inference.whole import regrid as device_regrid


def wave(period_px: float, shape: tuple[int, int] = (400, 440)) -> np.ndarray:
    return np.cos(2 * np.pi * np.arange(shape[1]) / period_px)[None].repeat(shape[0], 0).astype(np.float32)


def kept(image: np.ndarray, made: np.ndarray) -> float:
    inside = (slice(100, -100),) * 2
    return float((image[inside] * made[inside]).mean() / (image[inside] ** 2).mean())


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("period_px", "high", "low", "wanted"),
    [
        (20, None, 40.0, 0.5),
        (20, None, 10.0, 0.9576),
        (10, None, 40.0, 0.0625),
        (20, 40.0, None, 0.5),
        (20, 400.0, None, 1.0),
        (60, 20.0, None, 0.0191),
        (20, 400.0, 10.0, 0.9576),
    ],
)
def test_half_of_the_amplitude_passes_at_the_resolution_named(period_px, high, low, wanted, turned) -> None:
    image = 40 + 3 * wave(period_px)
    image = image.T.copy() if turned else image
    made = filtered_image(image, pixel_size_angstrom=2.0, highpass=high, lowpass_angstrom=low)
    assert kept(image - 40, made - 40) == pytest.approx(wanted, abs=0.004)


@pytest.mark.parametrize("shape", [(200, 190), (61, 300), (1, 50), (40, 1), (3, 2)])
@pytest.mark.parametrize(("high", "low"), [(300.0, None), (None, 12.0), (3000.0, 8.0)])
def test_the_mean_stays_and_a_device_gives_the_same(shape, high, low) -> None:
    image = np.random.default_rng(0).normal(6800, 9, shape).astype(np.float32)
    named = {"pixel_size_angstrom": 1.7, "highpass": high, "lowpass_angstrom": low}
    made = filtered_image(image, **named)
    assert made.shape == shape
    assert made.mean(dtype=np.float64) == pytest.approx(image.mean(dtype=np.float64), abs=1e-3)
    on_device = device_regrid.filtered_image(torch.from_numpy(image), **named).numpy()
    assert np.abs(on_device - made).max() < 5e-3


def test_the_border_is_not_seen() -> None:
    rows, columns = np.ogrid[:300, :340]
    slope = (0.4 * rows + 0.2 * columns).astype(np.float32)
    noise = np.random.default_rng(0).standard_normal(slope.shape).astype(np.float32)
    made = filtered_image(slope + noise, pixel_size_angstrom=1.0, highpass=30.0, lowpass_angstrom=None)
    middle = made[40:-40, 40:-40]
    for edge in (made[:2], made[-2:], made[:, :2], made[:, -2:]):
        assert abs(edge.mean() - middle.mean()) < 0.5 * 9, "a slope of 0.45 a pixel over the reach of the filter"
        assert abs(edge.mean() - middle.mean()) < 4
    flat = filtered_image(noise, pixel_size_angstrom=1.0, highpass=30.0, lowpass_angstrom=5.0)
    assert flat[0].std() < 1.6 * flat[40:-40].std()
