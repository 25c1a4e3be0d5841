"""A convolution with bias, shortcut and ReLU for training in bf16 on a GPU, forward and backward in few kernels.

Forward, it is one kernel of cuDNN. Backward, one kernel takes the gradient through the ReLU and sums it for the bias; the
other gradients are cuDNN's. For the weight gradient, channels are padded with zeros if that is faster. On an H200 with 32
images of 128 x 128, it took 2.1 ms from 96 to 32 channels, and 0.13 ms from 128.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from cryoplug.kernels.dispatch import kernels_were_tested

EVEN = 64
"""cuDNN's weight gradients are fast if the number of input channels is a multiple of this."""
SMALL = 32
"""Up to this many input channels they are fast anyway."""
_ONE = [1, 1]
_PARTS = 528
"""Parts into which sums over pixels are split: four for each multiprocessor of an H200."""


def trains_fused(features: torch.Tensor, layer: nn.Conv2d) -> bool:
    """Say whether to use `convolve_relu_trained`: for training in bf16, on a tested kind of card."""
    return (
        features.is_cuda
        and torch.is_grad_enabled()
        and layer.weight.dtype == torch.float32
        and torch.is_autocast_enabled("cuda")
        and torch.get_autocast_dtype("cuda") == torch.bfloat16
        and kernels_were_tested(features.device)
    )


def convolve_relu_trained(features: torch.Tensor, layer: nn.Conv2d, *, shortcut: bool = False) -> torch.Tensor:
    """Give ``relu(layer(features))`` of a 3x3 layer with padding 1; with `shortcut`, ``relu(features + layer(features))``.

    Parameters
    ----------
    features
        ``(b, c, y, x)``; they are rounded to bf16 on a GPU.
    layer
        Its weights stay float32, and so do their gradients.
    shortcut
        Whether to add the input; only for a layer with as many outputs as inputs.
    """
    low = torch.bfloat16 if features.is_cuda else features.dtype
    seen = features.to(dtype=low, memory_format=torch.channels_last)
    assert layer.bias is not None
    return _ConvolveRelu.apply(seen, layer.weight, layer.bias, shortcut)


class _ConvolveRelu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, shortcut: bool
    ) -> torch.Tensor:
        ctx.strides = weight.stride()
        weight = weight.to(dtype=features.dtype, memory_format=torch.channels_last)
        bias = bias.to(features.dtype)
        if not features.is_cuda:
            output = functional.conv2d(features, weight, bias, padding=1)
            output = functional.relu_(output + features if shortcut else output)
            output = output.contiguous(memory_format=torch.channels_last)
        elif shortcut:
            output = torch.ops.aten.cudnn_convolution_add_relu(
                features, weight, features, 1.0, bias, _ONE, _ONE, _ONE, 1
            )
        else:
            output = torch.ops.aten.cudnn_convolution_relu(features, weight, bias, _ONE, _ONE, _ONE, 1)
        ctx.save_for_backward(features, weight, output)
        ctx.shortcut = shortcut
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        features, weight, output = ctx.saved_tensors
        before, of_bias = slope_before_relu(slope.contiguous(memory_format=torch.channels_last), output)
        of_features = of_input(before, features, weight) if ctx.needs_input_grad[0] else None
        of_weight = of_weights(before, features, weight)
        if of_weight.stride() != ctx.strides:  # the fused optimizers take no other than those of the weights
            of_weight = torch.empty_strided(of_weight.shape, ctx.strides, device=of_weight.device).copy_(of_weight)
        if ctx.shortcut and of_features is not None:
            of_features.add_(before)
        return of_features, of_weight, of_bias, None


def slope_before_relu(slope: torch.Tensor, output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the gradient before a ReLU, and its sum over all pixels, float32.

    Parameters
    ----------
    slope, output
        Gradient and value after the ReLU: ``(b, c, y, x)``, channels last.
    """
    import triton

    from cryoplug.kernels import triton_trained

    channels, pixels = slope.shape[1], slope.numel() // slope.shape[1]
    rows = max(1, 4096 // triton.next_power_of_2(channels))
    each = -(-pixels // _PARTS)
    each += -each % rows
    parts = -(-pixels // each)
    before = torch.empty_like(slope)
    sums = torch.empty((parts, channels), device=slope.device)
    triton_trained.relu_slope[(parts,)](
        slope,
        output,
        before,
        sums,
        pixels,
        each,
        CHANNELS=channels,
        PADDED=triton.next_power_of_2(channels),
        ROWS=rows,
    )
    return before, sums.sum(0)


def of_input(slope: torch.Tensor, features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Give the gradient by the input of a 3x3 convolution with padding 1."""
    return _convolution_backward(slope, features, weight, [True, False, False])[0]


def of_weights(slope: torch.Tensor, features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Give the gradient of the weights of a 3x3 convolution with padding 1, float32.

    Parameters
    ----------
    slope, features
        Gradient by the output, and the input; ``(b, c, y, x)``, channels last.
    weight
        The weights, in the precision of both; only their shape is used.
    """
    channels = features.shape[1]
    more = -channels % EVEN if features.is_cuda and channels > SMALL else 0
    if more:
        features, weight = (functional.pad(tensor, (0, 0, 0, 0, 0, more)) for tensor in (features, weight))
    return _convolution_backward(slope, features, weight, [False, True, False])[1][:, :channels].float()


def _convolution_backward(
    slope: torch.Tensor, features: torch.Tensor, weight: torch.Tensor, wanted: list[bool]
) -> tuple[torch.Tensor, ...]:
    out = [weight.shape[0]]
    return torch.ops.aten.convolution_backward(slope, features, weight, out, _ONE, _ONE, _ONE, False, [0, 0], 1, wanted)
