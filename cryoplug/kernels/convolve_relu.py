"""A convolution with its bias, a shortcut and ReLU as one kernel of cuDNN, for inference in half precision.

Measured for the U-Net on an H100, 4096x4096, depth 3, width 32: 217 ms in float32, 70 under autocast to float16, 58 by
torch.compile (after 25 s of compiling), 40 with these two; and half the memory of autocast.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from cryoplug.kernels.trained import convolve_relu_trained, trains_fused

_ONE = [1, 1]


def convolve_relu(features: torch.Tensor, layer: nn.Conv2d) -> torch.Tensor:
    """Give ``relu(layer(features))`` of a 3x3 layer with padding 1; fastest in ``torch.channels_last``."""
    if _fuses(features, layer):
        return torch.ops.aten.cudnn_convolution_relu(features, layer.weight, layer.bias, _ONE, _ONE, _ONE, 1)
    if trains_fused(features, layer):
        return convolve_relu_trained(features, layer)
    return functional.relu(layer(features))


def convolve_add_relu(features: torch.Tensor, layer: nn.Conv2d, addend: torch.Tensor) -> torch.Tensor:
    """Give ``relu(addend + layer(features))``, in the same way."""
    if _fuses(features, layer):
        return torch.ops.aten.cudnn_convolution_add_relu(
            features, layer.weight, addend, 1.0, layer.bias, _ONE, _ONE, _ONE, 1
        )
    if addend is features and trains_fused(features, layer):
        return convolve_relu_trained(features, layer, shortcut=True)
    return functional.relu_(addend + layer(features))


def _fuses(features: torch.Tensor, layer: nn.Conv2d) -> bool:
    """Say whether to use cuDNN's fused kernels: not if a gradient is needed, and not in float32, where they are no faster."""
    low_precision = features.dtype in (torch.float16, torch.bfloat16) and layer.weight.dtype == features.dtype
    return low_precision and features.is_cuda and torch.version.cuda is not None and not torch.is_grad_enabled()
