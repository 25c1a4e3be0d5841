"""Wake the channels of a trained `unet` that are never on, so that they learn again; what it computes stays the same.

A network that has learnt for long has channels whose ReLU never gives more than 0. They get no gradient, so they never come
back, and the others learn a new specimen slowly. Sokar, Agarwal, Castro and Evci, The Dormant Neuron Phenomenon in Deep
Reinforcement Learning, ICML 2023, draw new weights for what such a channel reads, and set the weights by which others read
it to 0. Here the new weights are scaled to the images (Mishkin and Matas, All you need is a good init, ICLR 2016).
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn
from torch.nn import functional

from cryoplug.kernels.halving import double, halve
from cryoplug.models.unet import Block, UNet

NEVER = 1e-5
"""A channel is dormant when it is above 0 at no larger part of all places."""
DEVIATION = 0.1
"""Standard deviation of a woken channel before its ReLU: about that of the general model's channels at the finest level. At 0.5
the first steps at a rate of 0.004 overshoot by far."""


def wake(network: UNet, images: torch.Tensor, *, seed: int) -> int:
    """Wake the dormant channels, in place; give their number.

    Parameters
    ----------
    network
        Without norms.
    images
        What it will see, ``(b, 1, y, x)``, with sides on its grid. A channel that is never on here is dormant.
    seed
        Of the new weights.
    """
    generator = torch.Generator().manual_seed(seed)
    blocks = {name: block for name, block in network.named_children() if isinstance(block, Block)}
    readers = _readers(network, blocks)
    woken = 0
    skips: list[torch.Tensor] = []
    with torch.no_grad():
        hidden = images.clamp(-network.clip, network.clip) if network.clip else images
        hidden = functional.pixel_unshuffle(hidden, network.stem)
        for name, block in blocks.items():
            if name.startswith("up"):
                hidden = torch.cat((skips.pop(), double(hidden)), dim=1)
            count, hidden = _wake_block(block, hidden, readers[name], generator)
            woken += count
            if name.startswith("down"):
                skips.append(hidden)
                hidden = halve(hidden)
    return woken


def _readers(network: UNet, blocks: dict[str, Block]) -> dict[str, list[torch.Tensor]]:
    """Give for each block the weights ``(out, in, y, x)`` of others that read its channels."""
    order = list(blocks)
    readers: dict[str, list[torch.Tensor]] = {name: [] for name in order}
    for before, name in itertools.pairwise(order):
        weight, own = blocks[name].conv1.weight, blocks[before].conv2.out_channels
        readers[before].append(weight[:, -own:])
        if name.startswith("up"):
            readers[name.replace("up", "down")].append(weight[:, :-own])
    readers[order[-1]].append(network.output.weight)
    return readers


def _wake_block(
    block: Block, features: torch.Tensor, readers: list[torch.Tensor], generator: torch.Generator
) -> tuple[int, torch.Tensor]:
    """Wake the channels of a block; give their number, and what the block now computes.

    A shortcut adds each hidden channel to the output of the same number, so a hidden channel can only be woken with it.
    """
    hidden = functional.relu(block.conv1(features))
    asleep = _never_on(functional.relu(block.conv2(hidden) + hidden))
    if not asleep.any():
        return 0, functional.relu(block.conv2(hidden) + hidden)
    for weight in readers:
        weight[:, asleep] = 0.0
    both = asleep & _never_on(hidden)
    if both.any():
        block.conv2.weight[:, both] = 0.0
        _draw(block.conv1, both, features, DEVIATION, generator)
        hidden = functional.relu(block.conv1(features))
    _draw(block.conv2, asleep, hidden, DEVIATION / 2, generator)  # the shortcut brings the rest
    return int(asleep.sum()), functional.relu(block.conv2(hidden) + hidden)


def _never_on(features: torch.Tensor) -> torch.Tensor:
    return (features > 0).float().mean(dim=(0, 2, 3)) <= NEVER


def _draw(
    layer: nn.Conv2d, chosen: torch.Tensor, features: torch.Tensor, deviation: float, generator: torch.Generator
) -> None:
    """Draw new weights for the chosen channels, which make of the features values around 0 with this deviation."""
    shape = (int(chosen.sum()), *layer.weight.shape[1:])
    weights = torch.randn(shape, generator=generator).to(layer.weight.device)
    # Channels count alike, whatever their size; those that hardly change are left to count less.
    sizes = features.std(dim=(0, 2, 3))
    weights /= sizes.clamp_min(1e-3 * float(sizes.max())).view(1, -1, 1, 1) * math.sqrt(weights[0].numel())
    values = functional.conv2d(features, weights, padding=1)
    scale = deviation / values.std(dim=(0, 2, 3)).clamp_min(1e-12)
    layer.weight[chosen] = weights * scale.view(-1, 1, 1, 1)
    if layer.bias is not None:
        layer.bias[chosen] = -values.mean(dim=(0, 2, 3)) * scale
