"""Halving and doubling of feature maps, in the precision that they have, with the cheaper of two equal slopes.

Measured on an H200: the kernels of a training step of a `unet` (width 32, stem 2, 32 crops of 256x256, bf16) took 8.7 ms.
Doubling and its slope in float32 took 0.6 of them, because autocast asks for float32. Rounding back and forth around it took
0.8. Torch's slope of the mean of 2x2, which is nothing but doubling again, took 0.5.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional


def halve(features: torch.Tensor) -> torch.Tensor:
    """Give the means of 2x2 pixels of ``(b, c, y, x)``; sides are even."""
    return _Halve.apply(features)


def double(features: torch.Tensor) -> torch.Tensor:
    """Repeat each pixel of ``(b, c, y, x)`` 2x2 times."""
    with torch.autocast(features.device.type, enabled=False):
        return functional.interpolate(features, scale_factor=2, mode="nearest")


class _Halve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(features, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> torch.Tensor:
        return double(slope * 0.25)
