"""The deep network: twelve 3x3 convolutions with 32 channels that predict the noise, which is then subtracted."""

from __future__ import annotations

import torch
from torch import nn

from cryoplug.kernels.chained_relu import chained_relu
from cryoplug.kernels.narrow import convolve_to_one
from cryoplug.models.cryo_cnn import seed_weights

LAYER_COUNT = 12
CHANNELS = 32


class ResidualCNN(nn.Module):
    """Map a noisy image ``(b, 1, y, x)`` to the image minus its predicted noise."""

    def __init__(self) -> None:
        super().__init__()
        for number in range(1, LAYER_COUNT + 1):
            channels_in = 1 if number == 1 else CHANNELS
            channels_out = 1 if number == LAYER_COUNT else CHANNELS
            setattr(self, f"conv{number:02d}", nn.Conv2d(channels_in, channels_out, 3, padding=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Denoise; beyond the border of the image every layer sees zeros."""
        layers = [layer for layer in self.children() if isinstance(layer, nn.Conv2d)]
        hidden = images
        for layer in layers[:-1]:
            hidden = chained_relu(layer(hidden))
        return images - convolve_to_one(hidden, layers[-1])


def build(*, seed: int = 0) -> ResidualCNN:
    """Make the network with weights drawn from `seed`; torch's own random state is not touched."""
    with torch.random.fork_rng(devices=[]):
        network = ResidualCNN()
    seed_weights(network, seed)
    return network
