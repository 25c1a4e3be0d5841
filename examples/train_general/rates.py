"""The rate of each layer: the more values a layer adds up, the more slowly it learns.

Adam moves every weight by about the rate, whatever its size. What a layer adds up comes from ReLUs, so it is never below 0,
and the gradients of a channel's weights often agree in sign. So one step shifts a channel by up to rate times fan-in: in a wide
layer by several of its standard deviations. Once below 0 everywhere, it gets no gradient through its ReLU and never comes back.
A rate in proportion to 1 / fan-in moves the channels of all layers alike (Yang et al., Tensor Programs V, 2022).
"""

from __future__ import annotations

from torch import nn


def parts_of_the_rate(network: nn.Module, *, power: float) -> dict[float, list[nn.Parameter]]:
    """Share out the parameters of all convolutions by the part of the rate at which they learn.

    Parameters
    ----------
    network
        Its last convolution, which is called ``output``, has the fan-in of the finest level. That level learns at the whole rate.
    power
        0: all layers learn alike; 1: wider ones in inverse proportion to their fan-in.
    """
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    finest = layers["output"].weight[0].numel()
    parts: dict[float, list[nn.Parameter]] = {}
    for layer in layers.values():
        part = min(1.0, finest / layer.weight[0].numel()) ** power
        parts.setdefault(part, []).extend(layer.parameters())
    return parts
