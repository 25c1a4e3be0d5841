"""The judges of `benchmarks/nothing_invented.py` find what they are for, and nothing else."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ndimage = pytest.importorskip("scipy.ndimage")
FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def artefacts() -> ModuleType:
    """Load the script's module, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("artefacts", FOLDER / "artefacts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["artefacts"] = module
    spec.loader.exec_module(module)
    return module


def smooth_noise(seed: int, sigma: float = 2.0) -> np.ndarray:
    return ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((512, 512)), sigma)


@pytest.mark.parametrize("period", [2, 4, 8])
def test_a_grid_of_a_tenth_of_the_contrast_is_found(artefacts: ModuleType, period: int) -> None:
    image = smooth_noise(1)
    y, x = np.indices(image.shape)
    grid = np.cos(2 * np.pi * x / period) * np.cos(2 * np.pi * y / period)
    assert artefacts.grid_fraction(image) < 0.001
    assert 0.005 < artefacts.grid_fraction(image + 0.1 * image.std() / grid.std() * grid) < 0.02


def test_a_halo_is_measured_in_steps_and_noise_is_none(artefacts: ModuleType) -> None:
    rng = np.random.default_rng(2)
    y, x = np.indices((512, 512))
    distance = np.hypot(y - 256, x - 256) - 120
    region = distance < 0
    truth = np.where(region, -10.0, 0.0)
    raw = truth + rng.standard_normal(truth.shape)
    fair, _ = artefacts.halo(truth + 0.2 * smooth_noise(3), raw, region, reach_px=60)
    bright = truth + 3 * np.exp(-np.clip(distance, 0, None) / 20) * ~region
    halo, _ = artefacts.halo(bright, raw, region, reach_px=60)
    assert fair < 0.02
    assert halo == pytest.approx(0.27, abs=0.04)


def test_the_part_of_the_variance_of_a_copy_is_one(artefacts: ModuleType) -> None:
    image = smooth_noise(4)
    assert artefacts.variance_fraction(image, image) == pytest.approx(1)
    assert artefacts.variance_fraction(0.1 * image, image, longest_px=50) == pytest.approx(0.01)
