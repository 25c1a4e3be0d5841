"""Seeded degradation of a clean patch: shot noise and read-out noise of the founding recipe."""

from __future__ import annotations

import numpy as np

from cryoplug.core.micrograph import ImageF32
from cryoplug.errors import PixelError, UsageError

FOUNDING_DOSE = 100.0
"""Electrons per pixel at a clean value of 1."""
FOUNDING_SIGMA = 0.05
"""Standard deviation of the Gaussian read-out noise, in units of the clean value."""


def founding_noise(clean: np.ndarray, rng: np.random.Generator) -> ImageF32:
    """Degrade a clean patch: ``clip(Poisson(100 * clean) / 100 + N(0, 0.05), 0, 1)``.

    Parameters
    ----------
    clean
        Values of the percentile normalization, in [0, 1], any shape.
    rng
        Random generator; see `patch_rng`.

    Returns
    -------
    ImageF32
        New array of the same shape, in [0, 1].

    Raises
    ------
    PixelError
        A value is negative or NaN, which a dose cannot be.
    """
    if clean.size and not float(clean.min()) >= 0.0:
        raise PixelError(
            f"clean values start at {float(clean.min()):g}; Poisson noise needs 0 to 1; use --normalize percentile"
        )
    counts = rng.poisson(np.asarray(clean, np.float64) * FOUNDING_DOSE)
    noisy = counts.astype(np.float32)
    noisy /= np.float32(FOUNDING_DOSE)
    noisy += rng.standard_normal(clean.shape, dtype=np.float32) * np.float32(FOUNDING_SIGMA)
    return np.clip(noisy, 0.0, 1.0, out=noisy)


def patch_rng(seed: int, *path: int) -> np.random.Generator:
    """Make the generator of one patch: a pure function of the seed and of where the patch lies.

    Parameters
    ----------
    seed
        The run's seed, not negative.
    *path
        Whole numbers, not negative, that name the patch: micrograph index, y, x. Use as many for every patch of a run:
        numpy takes ``(3, 5)`` and ``(3, 5, 0)`` for the same seed.
    """
    numbers = [seed, *path]
    if any(number < 0 for number in numbers):
        raise UsageError(f"seed and position {numbers}; allowed: whole numbers from 0")
    return np.random.default_rng(numbers)
