"""The network behind ``one_conv``."""

from __future__ import annotations

import torch
from torch import nn


class OneConv(nn.Module):
    """Map ``(b, 1, y, x)`` to the same shape with one convolution and zero padding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Filter a batch of images."""
        return self.conv1(images)


def build(*, seed: int = 0) -> OneConv:
    """Make the network with weights that depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return OneConv()
