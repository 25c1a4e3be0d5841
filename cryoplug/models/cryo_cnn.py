"""The founding network: three 3x3 convolutions, 1-16-16-1, zero padding, ReLU after the first two."""

from __future__ import annotations

import math

import torch
from torch import nn

from cryoplug.kernels.chained_relu import chained_relu
from cryoplug.kernels.narrow import convolve_to_one


class CryoCNN(nn.Module):
    """Map a noisy image ``(b, 1, y, x)`` to a denoised one of the same shape."""

    fused_kernels = "cryo_cnn"
    """Name of the kernels in `cryoplug.kernels.dispatch` that compute the same network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.conv3 = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Denoise; beyond the border of the image every layer sees zeros."""
        hidden = chained_relu(self.conv1(images))
        hidden = chained_relu(self.conv2(hidden))
        return convolve_to_one(hidden, self.conv3)


def seed_weights(module: nn.Module, seed: int) -> None:
    """Draw all convolution weights as torch does by default, but from their own generator.

    They are drawn in the order of construction, so they equal those after ``torch.manual_seed(seed)`` and building the layers.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
            if layer.bias is not None:
                bound = 1.0 / math.sqrt(layer.weight[0].numel())
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def build(*, seed: int = 0) -> CryoCNN:
    """Make the network with weights drawn from `seed`; torch's own random state is not touched."""
    with torch.random.fork_rng(devices=[]):
        network = CryoCNN()
    seed_weights(network, seed)
    return network
