"""ReLU between two layers of a chain: the backward pass overwrites the gradient, which nobody else reads.

torch makes a new tensor for the gradient before every ReLU. For 16 channels of 1024x1024 that writes 67 MB, which do not
stay in cache. Without it, training of cryo_cnn on two cores is 3 to 10 % faster.
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
        Output of a layer; it is overwritten. The result must go into only one layer, as in a chain: a second layer would get
        a gradient that was overwritten.

    Returns
    -------
    torch.Tensor
        `features`. The gradients equal those of `torch.nn.functional.relu_`, bit for bit.
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
