from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from cryoplug.kernels.halving import double, halve

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def plain_double(features: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(features, scale_factor=2, mode="nearest")


def plain_halve(features: torch.Tensor) -> torch.Tensor:
    return functional.avg_pool2d(features, 2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("ours", "plain"), [(halve, plain_halve), (double, plain_double)])
def test_values_and_slopes_are_those_of_torch_to_the_last_bit(ours, plain, dtype, layout) -> None:
    features = torch.randn(2, 3, 6, 10).to(dtype, memory_format=layout).requires_grad_()
    wanted, found = plain(features), ours(features)
    slope = torch.randn(wanted.shape).to(dtype, memory_format=layout)
    assert torch.equal(found, wanted)
    (right,), (mine,) = (torch.autograd.grad(result, features, slope) for result in (wanted, found))
    assert mine.dtype == dtype and torch.equal(mine, right)
    assert found.is_contiguous(memory_format=layout) and mine.is_contiguous(memory_format=layout)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU: only its autocast asks for float32 here")
@pytest.mark.parametrize("work", [halve, double])
def test_autocast_of_a_gpu_changes_neither_precision_nor_slope(work) -> None:
    features = torch.randn(1, 2, 4, 4, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        result = work(features)
    assert result.dtype == torch.bfloat16
    assert torch.autograd.grad(result.float().sum(), features)[0].dtype == torch.bfloat16
