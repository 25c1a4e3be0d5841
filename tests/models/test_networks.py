from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from cryoplug.errors import UsageError
from cryoplug.models.registry import BUILT_IN, CRYO_CNN, RESIDUAL_CNN, ModelSpec, model_spec, models


def plain(layers: int, channels: int) -> nn.Sequential:
    sizes = [1] + [channels] * (layers - 1) + [1]
    parts: list[nn.Module] = []
    for i, (inside, outside) in enumerate(itertools.pairwise(sizes)):
        parts += [nn.Conv2d(inside, outside, 3, padding=1), nn.ReLU()] if i < layers - 1 else []
        if i == layers - 1:
            parts.append(nn.Conv2d(inside, outside, 3, padding=1))
    return nn.Sequential(*parts)


@pytest.mark.parametrize(("spec", "count"), [(CRYO_CNN, 2625), (RESIDUAL_CNN, 93089)])
def test_parameter_counts_are_those_of_the_contract(spec: ModelSpec, count: int) -> None:
    assert sum(parameter.numel() for parameter in spec.build().parameters()) == count


@pytest.mark.parametrize(("spec", "layers", "channels"), [(CRYO_CNN, 3, 16), (RESIDUAL_CNN, 12, 32)])
def test_fresh_weights_and_output_equal_those_of_plain_layers_after_manual_seed(
    spec: ModelSpec, layers: int, channels: int
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        reference = plain(layers, channels)
    network = spec.build(seed=7)
    for mine, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    image = torch.rand(2, 1, 19, 23)
    expected = image - reference(image) if spec is RESIDUAL_CNN else reference(image)
    torch.testing.assert_close(network(image), expected, rtol=1e-5, atol=1e-6)


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'unet9' is not known.*cryo_cnn, residual_cnn"):
        model_spec("unet9")


def test_a_plugin_cannot_take_the_place_of_a_founding_model(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ModelSpec("mine", "", "nowhere:build", 1)
    thief = ModelSpec("cryo_cnn", "", "nowhere:build", 1)
    monkeypatch.setattr("cryoplug.extensions.load_all", lambda group, **_: {"mine": mine, "thief": thief})
    assert models() == {**{spec.id: spec for spec in BUILT_IN}, "mine": mine}


def test_a_spec_with_impossible_numbers_is_refused() -> None:
    with pytest.raises(UsageError, match="size_multiple 0"):
        ModelSpec("x", "", "a:b", 1, size_multiple=0)


def test_a_config_that_the_factory_does_not_know_is_refused() -> None:
    with pytest.raises(UsageError, match="depth"):
        CRYO_CNN.build(config={"depth": 3})
