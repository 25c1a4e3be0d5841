"""The founding noise: its moments, its limits, and its seeds."""

from __future__ import annotations

import numpy as np
import pytest

from cryoplug.core.noise import founding_noise, patch_rng
from cryoplug.errors import PixelError, UsageError


def test_noise_has_the_mean_and_variance_of_the_recipe() -> None:
    clean = np.full((400, 400), 0.5, np.float32)
    noisy = founding_noise(clean, patch_rng(1))
    assert noisy.dtype == np.float32
    assert noisy.mean() == pytest.approx(0.5, abs=1e-3)
    # Poisson: 0.5 / 100; read-out: 0.05 ** 2.
    assert noisy.var() == pytest.approx(0.5 / 100 + 0.05**2, rel=0.02)


def test_noise_stays_between_0_and_1() -> None:
    clean = np.linspace(0, 1, 10_000, dtype=np.float32).reshape(100, 100)
    noisy = founding_noise(clean, patch_rng(1))
    assert (noisy.min(), noisy.max()) == (0, 1)


def test_noise_is_a_function_of_seed_and_place() -> None:
    clean = np.full((16, 16), 0.3, np.float32)
    first, again = (founding_noise(clean, patch_rng(3, 5, 512, 0)) for _ in range(2))
    assert np.array_equal(first, again)
    for other in ((4, 5, 512, 0), (3, 5, 0, 512), (3, 6, 512, 0), (3, 5, 512, 1)):
        assert not np.array_equal(first, founding_noise(clean, patch_rng(*other)))


@pytest.mark.parametrize("bad", [-0.1, np.nan])
def test_a_negative_dose_is_refused(bad: float) -> None:
    with pytest.raises(PixelError, match="use --normalize percentile"):
        founding_noise(np.array([0.5, bad]), patch_rng(0))


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(UsageError, match=r"\[-1, 2\]"):
        patch_rng(-1, 2)
