"""ReLU between two layers of a chain: backward, it overwrites the slope that only it will read.

torch makes a new tensor for the slope before every ReLU; for 16 channels of 1024x1024 that is 67 MB written, and as much
memory that does not stay in cache. Training cryo_cnn on two cores gains 3 to 10 %.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional


def chained_relu(features: torch.Tensor) -> torch.Tensor:
    """Apply ReLU in place.

    Parameters
    ----------
    features
        Output of a layer; it is overwritten. What comes back must go into one layer alone, as in a chain: a second
        reader of it would see a slope that was changed.

    Returns
    -------
    torch.Tensor
        `features`. The gradients are those of `torch.nn.functional.relu_`, to the last bit.
    """
    if features.device.type != "cpu" or not torch.is_grad_enabled():
        return functional.relu_(features)
    return _ChainedReLU.apply(features)


class _ChainedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: torch.Tensor) -> torch.Tensor:
        features.relu_()
        ctx.mark_dirty(features)
        ctx.save_for_backward(features)
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> torch.Tensor:
        (output,) = ctx.saved_tensors
        if slope.stride() != output.stride():
            return torch.ops.aten.threshold_backward(slope, output, 0.0)
        return torch.ops.aten.threshold_backward.grad_input(slope, output, 0.0, grad_input=slope)
