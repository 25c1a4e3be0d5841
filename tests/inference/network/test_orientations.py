from __future__ import annotations

import numpy as np
import pytest
import torch

from cryoplug.errors import UsageError
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.network.orientations import averages_orientations, mean_over_orientations
from cryoplug.models.checkpoint import Checkpoint
from cryoplug.models.registry import UNET


def moved_right(images: torch.Tensor) -> torch.Tensor:
    return images.roll(1, 3)


def test_every_orientation_counts_alike_and_is_turned_back() -> None:
    dot = torch.zeros(1, 1, 6, 8)
    dot[0, 0, 2, 3] = 1.0
    wanted = torch.zeros_like(dot)
    for y, x in ((2, 4), (2, 2), (1, 3), (3, 3)):
        wanted[0, 0, y, x] = 0.25
    assert torch.equal(mean_over_orientations(moved_right, dot), wanted)


def test_a_network_that_knows_no_direction_gives_what_it_always_gives() -> None:
    images = torch.randn(2, 1, 5, 7)
    torch.testing.assert_close(mean_over_orientations(torch.tanh, images), torch.tanh(images))


@pytest.mark.parametrize("config", [{"depth": 2, "width": 4}, {"depth": 1, "width": 4, "stem": 2, "skip": "none"}])
@pytest.mark.parametrize("shape", [(150, 203), (96, 128)])
def test_tiles_give_what_the_whole_image_gives(config: dict[str, object], shape: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    weights = {
        name: random.normal(0, 0.2, tensor.shape).astype(np.float32)
        for name, tensor in UNET.build(config=config).state_dict().items()
    }
    checkpoint = Checkpoint("unet", weights, config, "zscore")
    image = random.normal(0, 1, shape).astype(np.float32)
    whole = Denoiser(checkpoint, device="cpu", tile=1024, tta=True).denoise(image)
    tiled = Denoiser(checkpoint, device="cpu", tile=32, tta=True).denoise(image)
    plain = Denoiser(checkpoint, device="cpu", tile=1024).denoise(image)
    assert np.abs(whole - tiled).max() <= 2e-6 * np.ptp(whole)
    assert np.abs(whole - plain).max() > 1e-3 * np.ptp(whole)


def test_a_turned_micrograph_gives_the_turned_result() -> None:
    config = {"depth": 1, "width": 4}
    random = np.random.default_rng(2)
    weights = {
        name: random.normal(0, 0.3, tensor.shape).astype(np.float32)
        for name, tensor in UNET.build(config=config).state_dict().items()
    }
    denoiser = Denoiser(Checkpoint("unet", weights, config, "zscore"), device="cpu", tta=True)
    image = random.normal(0, 1, (64, 96)).astype(np.float32)
    found, turned = denoiser.denoise(image), denoiser.denoise(np.ascontiguousarray(np.rot90(image)))
    assert np.abs(np.rot90(found) - turned).max() <= 2e-6 * np.ptp(found)


@pytest.mark.parametrize(
    ("asked", "device", "angpix", "wanted"),
    [
        ("on", "cpu", None, True),
        ("off", "cuda", 2.6, False),
        ("auto", "cuda", 2.6, True),
        ("auto", "cuda", None, False),
        ("auto", "cpu", 2.6, False),
    ],
)
def test_auto_takes_them_where_they_are_cheap(asked: str, device: str, angpix: float | None, wanted: bool) -> None:
    assert averages_orientations(asked, torch.device(device), angpix=angpix) is wanted


def test_another_word_is_refused() -> None:
    with pytest.raises(UsageError, match="--tta 'yes'"):
        averages_orientations("yes", torch.device("cpu"), angpix=None)
