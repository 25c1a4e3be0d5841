from __future__ import annotations

import pytest
import torch
from torch import nn

from cryoplug.kernels.narrow import convolve_to_one


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 3), (7, 1), (17, 31)])
@pytest.mark.parametrize("channels", [1, 2, 16])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_those_of_the_layer(
    shape: tuple[int, int], channels: int, batch: int, dtype: torch.dtype
) -> None:
    layer = nn.Conv2d(channels, 1, 3, padding=1).to(dtype)
    images = torch.rand(batch, channels, *shape, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    slope = torch.rand(batch, 1, *shape, dtype=dtype)
    inputs = [images, layer.weight, layer.bias]
    mine, theirs = convolve_to_one(images, layer), layer(images)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(mine, theirs, **tolerance)
    expected = torch.autograd.grad(theirs, inputs, slope)
    for a, b in zip(torch.autograd.grad(mine, inputs, slope), expected, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def test_gradients_pass_the_numerical_check() -> None:
    layer = nn.Conv2d(2, 1, 3, padding=1).double()
    images = torch.rand(1, 2, 3, 4, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: convolve_to_one(x, layer), images)


def test_nan_stays_nan() -> None:
    images = torch.full((1, 2, 4, 4), torch.nan).to(memory_format=torch.channels_last)
    assert convolve_to_one(images, nn.Conv2d(2, 1, 3, padding=1)).isnan().all()
