from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from cryoplug.kernels.chained_relu import chained_relu


def gradients(relu, layout: torch.memory_format, slope: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(4)
    layers = [nn.Conv2d(channels, 5, 3, padding=1) for channels in (2, 5)]
    images = torch.randn(3, 2, 9, 11).to(memory_format=layout).requires_grad_()
    hidden = images
    for layer in layers:
        hidden = relu(layer(hidden))
    weights = [weight for layer in layers for weight in layer.parameters()]
    return [hidden.detach().clone(), *torch.autograd.grad(hidden, [images, *weights], slope)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("expanded", [False, True])
def test_values_and_gradients_are_those_of_relu_to_the_last_bit(layout: torch.memory_format, expanded: bool) -> None:
    slope = torch.randn(1, 1, 1, 1).expand(3, 5, 9, 11) if expanded else torch.randn(3, 5, 9, 11)
    wanted = gradients(functional.relu, layout, slope.clone())
    for found, right in zip(gradients(chained_relu, layout, slope), wanted, strict=True):
        assert torch.equal(found, right)


def test_nan_passes_both_ways() -> None:
    features = torch.tensor([[[[torch.nan, -1.0, 2.0]]]], requires_grad=True)
    output = chained_relu(features * 1.0)
    assert torch.equal(output.isnan(), features.isnan())
    (found,) = torch.autograd.grad(output, features, torch.full_like(output, 3.0))
    right = torch.autograd.grad(functional.relu(features), features, torch.full_like(output, 3.0))[0]
    assert torch.equal(found, right)


def test_nothing_is_recorded_without_gradients() -> None:
    with torch.no_grad():
        features = torch.tensor([-1.0, 1.0])
        assert chained_relu(features) is features
    assert features.tolist() == [0.0, 1.0]
