"""Which output of a network is written, and how it comes back to grey values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.normalization import MeasuredSource, fit_to
from cryoplug.errors import UsageError
from cryoplug.inference.network.fastest import Network
from cryoplug.inference.target import DEFAULT_TARGET, TARGETS, choose_target, to_grey_values
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint
from cryoplug.models.registry import CRYO_CNN
from cryoplug.models.unet_geometry import OUTPUTS


def of_one_output() -> Checkpoint:
    weights = {name: tensor.numpy() for name, tensor in CRYO_CNN.build(seed=1).state_dict().items()}
    return Checkpoint("cryo_cnn", weights, normalize="zscore")


def test_the_targets_are_the_outputs_of_a_unet() -> None:
    assert TARGETS == OUTPUTS and DEFAULT_TARGET in TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_a_network_gives_the_channel_that_was_chosen(general_model, target: str) -> None:
    checkpoint = load_checkpoint("general")
    network = Network(
        checkpoint,
        torch.device("cpu"),
        layout=torch.channels_last,
        precision="float32",
        normalize="robust",
        target=target,
    )
    images = torch.randn(1, 1, 24, 32)
    with torch.inference_mode():
        both = network.module(images)
        found = network(images)
    assert found.shape == (1, 1, 24, 32)
    assert torch.equal(found, both[:, TARGETS.index(target)][:, None])


def test_what_a_checkpoint_does_not_give_is_an_error_that_says_what_does(general_model) -> None:
    assert choose_target(None, load_checkpoint("general")) == DEFAULT_TARGET
    assert [choose_target(target, load_checkpoint("general")) for target in TARGETS] == list(TARGETS)
    assert choose_target(None, of_one_output()) == choose_target("image", of_one_output()) == "image"
    with pytest.raises(UsageError, match="--target particles: cryo_cnn gives the image only; leave --target out"):
        choose_target("particles", of_one_output())


@pytest.mark.parametrize("mean", [0.0, -20.0, 6800.0])
def test_particles_keep_the_scale_and_lie_on_the_mean_of_the_micrograph(mean: float) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.normal(mean, 9, (64, 64)).astype(np.float32)
    pixels[:8] -= 400  # of gold: its median and its mean are far apart
    measured = MeasuredSource(ArrayMicrograph(pixels))
    normalization, statistics = fit_to(measured, "robust"), measured.statistics()
    network_output = np.zeros((64, 64), np.float32)
    network_output[3, 3] = -1.5
    image, particles = (
        to_grey_values(normalization, statistics.mean, target).invert(network_output)
        for target in ("image", "particles")
    )
    assert particles[0, 0] == pytest.approx(pixels.mean(dtype=np.float64), rel=1e-6, abs=1e-4)
    assert image[0, 0] == pytest.approx(np.median(pixels), rel=1e-6, abs=1e-4)
    for made in (image, particles):
        assert made[3, 3] - made[0, 0] == pytest.approx(-1.5 * normalization.scale, rel=1e-3)
