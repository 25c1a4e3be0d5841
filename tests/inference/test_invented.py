"""Particles that the raw pixels show no sign of: on every road the same warning, and none where they can be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryoplug.formats.mrc import write_mrc
from cryoplug.inference import remarks
from cryoplug.inference.delivery import Delivery
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.in_memory import on_the_networks_grid
from cryoplug.inference.messages import DenoiseJob
from cryoplug.inference.pipeline import run_pipeline
from cryoplug.inference.remarks import invented_remark
from cryoplug.metrics.appearance import Appearance, looks_like_noise, measure_appearance
from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.models.checkpoint import Checkpoint
from cryoplug.models.registry import model_spec

CONFIG: dict[str, Any] = {"depth": 1, "width": 4, "outputs": 2, "skip": "none"}
TOLD = "the raw pixels look like noise"


def grain(seed: int, *, white: float = 1.0) -> np.ndarray:
    """Noise with the spectrum of particles: blurred and white."""
    rng = np.random.default_rng(seed)
    blurred = gaussian_blur(rng.standard_normal((512, 512)).astype(np.float32), 4)
    return (100 + 3 * blurred / blurred.std() + white * rng.standard_normal(blurred.shape)).astype(np.float32)


def dark_discs(seed: int) -> np.ndarray:
    """Two hundred particles in that noise."""
    rng, image = np.random.default_rng(seed), grain(seed)
    y, x = np.mgrid[:25, :25] - 12
    for top, left in rng.integers(0, 512 - 25, (200, 2)):
        image[top : top + 25, left : left + 25] -= 9 * (np.hypot(y, x) < 9)
    return image


@pytest.fixture
def checkpoint(monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setattr(remarks, "MUCH_CAME_OUT", 1e-9)
    rng = np.random.default_rng(1)
    state = model_spec("unet").build(config=CONFIG).state_dict()
    weights = {name: (0.3 * rng.standard_normal(tensor.shape)).astype(np.float32) for name, tensor in state.items()}
    return Checkpoint("unet", weights, config=CONFIG, normalize="robust")


def said(checkpoint: Checkpoint, image: np.ndarray, folder: Path, *, whole: bool, **options: Any) -> str:
    write_mrc(folder / "m.mrc", image, pixel_size_angstrom=3.0)
    denoiser = Denoiser(checkpoint, device="cpu", threads=1, **options)
    found: list[str] = []
    delivery = Delivery(lambda job, result: found.append(result.message), "test")
    assert run_pipeline([DenoiseJob(folder / "m.mrc", folder / "out.mrc", None)], denoiser, delivery, whole=whole)
    return found[0]


@pytest.mark.parametrize("seed", [1, 2])
def test_every_road_warns_of_particles_in_noise_and_of_none_in_particles(
    checkpoint: Checkpoint, seed: int, tmp_path: Path
) -> None:
    for image, told in ((grain(seed), True), (dark_discs(seed), False)):
        for whole in (False, True):
            assert (TOLD in said(checkpoint, image, tmp_path, whole=whole, target="particles")) == told
        denoiser = Denoiser(checkpoint, device="cpu", threads=1, target="particles")
        plan = denoiser.regrid.plan(image.shape, 3.0, path=tmp_path)
        assert any(TOLD in text for text in on_the_networks_grid(denoiser, image, plan).remarks) == told


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("options", [{"target": "image"}, {"target": "particles", "strength": 0.5}], ids=str)
def test_an_image_and_a_mixture_with_the_raw_pixels_are_no_particles(
    checkpoint: Checkpoint, options: dict[str, Any], whole: bool, tmp_path: Path
) -> None:
    assert TOLD not in said(checkpoint, grain(1), tmp_path, whole=whole, **options)


def test_little_that_came_out_is_no_reason_to_warn() -> None:
    assert invented_remark(0.22, 1.0) == ""
    assert invented_remark(0.3, 0.0) == ""
    assert "have 9 % of the variance" in invented_remark(0.3, 1.0)


def test_noise_of_any_colour_is_balanced_and_what_was_not_measured_says_nothing() -> None:
    for seed in range(6):
        found = measure_appearance([grain(seed, white=seed)])
        assert found is not None and looks_like_noise(found), (seed, found)
        found = measure_appearance([dark_discs(seed)])
        assert found is not None and not looks_like_noise(found), (seed, found)
    assert not looks_like_noise(Appearance(0.0, 1.0, 1.0, {}, {}))


def few_large_particles(seed: int) -> np.ndarray:
    """Three strong particles of 45 pixels in a narrow field: each one weighs so much that their number makes it uncertain."""
    rng, image = np.random.default_rng(seed), np.random.default_rng(seed).normal(100, 1, (384, 160)).astype(np.float32)
    y, x = np.mgrid[:45, :45] - 22
    for top in (20, 150, 300):
        left = int(rng.integers(5, 110))
        image[top : top + 45, left : left + 45] -= 4 * (np.hypot(y, x) < 22)
    return image


def test_few_large_particles_are_not_balanced_however_uncertain_their_skewness_is() -> None:
    for seed in range(6):
        found = measure_appearance([few_large_particles(seed)])
        assert found is not None and not looks_like_noise(found), (seed, found)
