"""Where grey values leave the sign of the contrast open, the network is asked: few times, and only of clear particles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cryoplug.inference import second_look
from cryoplug.inference.network import every_output
from cryoplug.inference.second_look import MOST_ASKED, bright_particles_found
from cryoplug.metrics.appearance import Appearance
from cryoplug.models.checkpoint import Checkpoint
from cryoplug.models.registry import model_spec

IN_DOUBT = Appearance(0.0, 1.0, 1.0, {4: -0.2, 8: 0.5}, {4: 0.1, 8: 0.1})
DARK = Appearance(0.0, 1.0, 1.0, {4: -0.2, 8: 0.2}, {4: 0.1, 8: 0.1})


class FindsDarkSpots:
    """A network of which it is known what it finds: pixels that are darker than any noise."""

    asked = 0

    def __init__(self, checkpoint: Checkpoint) -> None:
        assert checkpoint.spec.outputs == ("image", "particles")

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        type(self).asked += 1
        return np.stack([pixels, np.minimum(pixels + 5, 0)])


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(every_output, "EveryOutput", FindsDarkSpots)
    second_look._network_of.cache_clear()
    FindsDarkSpots.asked = 0
    yield
    second_look._network_of.cache_clear()


@pytest.fixture
def checkpoint() -> Checkpoint:
    config: dict[str, Any] = {"depth": 1, "width": 4, "outputs": 2, "skip": "none"}
    state = model_spec("unet").build(config=config).state_dict()
    return Checkpoint(
        "unet", {name: tensor.numpy() for name, tensor in state.items()}, config=config, normalize="robust"
    )


def window(height: float, *, spots: int = 40, side: int = 300) -> np.ndarray:
    """Noise of deviation 1, and spots of some height."""
    rng = np.random.default_rng(1)
    pixels = rng.normal(0, 1, (side, side)).astype(np.float32)
    for y, x in rng.integers(0, side - 6, (spots, 2)):
        pixels[y : y + 6, x : x + 6] += height
    return pixels


@pytest.mark.parametrize("side", [300, 700])
def test_bright_particles_are_told_and_dark_ones_and_noise_are_not(checkpoint: Checkpoint, side: int) -> None:
    def said(height: float) -> str:
        return bright_particles_found(IN_DOUBT, [window(height, side=side)] * 4, checkpoint)

    assert "its contrast looks inverted: the network finds 100 % of the particles" in said(9)
    assert said(-9) == said(0) == ""


def test_few_large_particles_are_asked_about_however_uncertain_their_skewness_is(checkpoint: Checkpoint) -> None:
    uncertain = Appearance(0.0, 1.0, 1.0, {4: 0.3, 8: 1.2}, {4: 0.4, 8: 0.9})
    assert bright_particles_found(uncertain, [window(9)], checkpoint) != ""
    balanced = Appearance(0.0, 1.0, 1.0, {4: 0.3, 8: 0.9}, {4: 0.4, 8: 0.9})
    assert bright_particles_found(balanced, [window(9)], checkpoint) == ""


def test_as_many_dark_particles_as_bright_ones_are_no_sign(checkpoint: Checkpoint) -> None:
    assert bright_particles_found(IN_DOUBT, [window(9), window(-9)], checkpoint) == ""
    assert bright_particles_found(IN_DOUBT, [window(9, spots=60), window(-9, spots=20)], checkpoint) != ""


def test_a_few_bright_pixels_are_no_particles(checkpoint: Checkpoint) -> None:
    pixels = window(0)
    pixels[7, 7] = 10
    assert bright_particles_found(IN_DOUBT, [pixels], checkpoint) == ""


def test_the_network_is_asked_in_doubt_only_and_not_for_ever(checkpoint: Checkpoint) -> None:
    for _ in range(MOST_ASKED + 1):
        assert bright_particles_found(DARK, [window(9)], checkpoint) == ""
    assert FindsDarkSpots.asked == 0
    told = [bool(bright_particles_found(IN_DOUBT, [window(9)], checkpoint)) for _ in range(MOST_ASKED + 2)]
    assert told == [True] * MOST_ASKED + [False] * 2
    assert FindsDarkSpots.asked == 2 * MOST_ASKED, "both signs of one window each"
