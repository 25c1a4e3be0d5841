"""Training's convolution against torch's layers, at odd sizes; in Triton's interpreter on a CPU."""

from __future__ import annotations

import os
from unittest.mock import Mock

import pytest
import torch
from torch import nn
from torch.nn import functional

from cryoplug.kernels.halving import repeat_pixels
from cryoplug.kernels.trained import convolve_relu_trained, of_weights, slope_before_relu, trains_fused

SHAPES = [(1, 1, 1), (2, 5, 7), (1, 17, 16), (3, 8, 33)]
CHANNELS = [(1, 1), (4, 32), (32, 32), (40, 40), (96, 32), (64, 64), (192, 8)]


@pytest.fixture(autouse=True)
def device() -> torch.device:
    pytest.importorskip("triton", reason="triton is not installed: its interpreter runs the GPU kernels in tests")
    return torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")


def last(*shape: int, device: torch.device) -> torch.Tensor:
    return torch.randn(shape, device=device).to(memory_format=torch.channels_last)


@pytest.mark.parametrize(("into", "out"), CHANNELS)
def test_zeros_beside_the_channels_leave_the_weight_gradient_as_it_is(
    into: int, out: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, slope = (last(2, channels, 7, 6, device=device) for channels in (into, out))
    weight = last(out, into, 3, 3, device=device)
    wanted = torch.nn.grad.conv2d_weight(features.double(), weight.shape, slope.double(), padding=1)
    monkeypatch.setattr(functional, "pad", padded := Mock(wraps=functional.pad))
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    found = of_weights(slope, features, weight)
    assert padded.called == (into > 32 and into % 64 > 0)
    assert found.dtype == torch.float32 and found.shape == weight.shape
    # A GPU multiplies in TF32, which cuts off what is below a 1024th of each number.
    assert (found.double() - wanted).abs().max() <= 2e-3 * wanted.abs().max()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [1, 32, 40, 320])
def test_a_slope_goes_through_relu_where_the_output_is_positive(
    shape: tuple[int, int, int], channels: int, device: torch.device
) -> None:
    images, height, width = shape
    slope = last(images, channels, height, width, device=device)
    output = last(images, channels, height, width, device=device).relu()
    before, sums = slope_before_relu(slope, output)
    wanted = torch.where(output > 0, slope, 0)
    assert torch.equal(before, wanted)
    assert torch.allclose(sums, wanted.sum((0, 2, 3)), atol=1e-4)


@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("channels", [5, 72])
def test_values_and_gradients_are_those_of_the_layers(shortcut: bool, channels: int, device: torch.device) -> None:
    layer = nn.Conv2d(channels, channels, 3, padding=1).to(device)
    features = torch.randn(2, channels, 6, 9, device=device, requires_grad=True)
    slope = torch.randn(2, channels, 6, 9, device=device)
    found = convolve_relu_trained(features, layer, shortcut=shortcut)
    plain = functional.relu(layer(features) + features if shortcut else layer(features))
    tolerance = 2e-2 if device.type == "cuda" else 1e-5
    assert torch.allclose(found.float(), plain, atol=tolerance, rtol=tolerance)
    arguments = [features, *layer.parameters()]
    ours = torch.autograd.grad(found, arguments, slope.to(found.dtype))
    # Through the ReLU of our own output: one that rounding moved across zero says nothing of the kernels.
    before = torch.where(found > 0, slope, 0)
    theirs = torch.autograd.grad(layer(features) + (features if shortcut else 0), arguments, before)
    for mine, right in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.float32
        assert float((mine - right).abs().max()) <= tolerance * float(right.abs().max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [1, 32, 40])
def test_pixels_are_repeated_as_torch_repeats_them(
    shape: tuple[int, int, int], channels: int, device: torch.device
) -> None:
    images, height, width = shape
    features = last(images, channels, height, width, device=device)
    found = repeat_pixels(features, 0.25)
    assert torch.equal(found, functional.interpolate(features * 0.25, scale_factor=2, mode="nearest"))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_layers_of_an_input_that_learns_nothing_get_no_slope_before_them(device: torch.device) -> None:
    layer = nn.Conv2d(4, 4, 3, padding=1).to(device)
    features = torch.randn(1, 4, 6, 9, device=device)
    convolve_relu_trained(features, layer).float().sum().backward()
    assert layer.weight.grad is not None and features.grad is None


def test_a_cpu_keeps_the_plain_layers() -> None:
    layer = nn.Conv2d(4, 4, 3, padding=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not trains_fused(torch.randn(1, 4, 8, 8), layer)
