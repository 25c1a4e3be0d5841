"""Copy the weights of a network into arrays, and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from cryoplug.errors import UsageError


def weights_of(module: nn.Module) -> dict[str, np.ndarray]:
    """Return a copy of all weights as float32 arrays, C order.

    Raises
    ------
    UsageError
        A weight is not float32.
    """
    weights = {}
    for name, tensor in module.state_dict().items():
        if tensor.dtype != torch.float32:
            raise UsageError(f"{name} of this network is {tensor.dtype} (allowed: float32); it cannot be kept")
        weights[name] = np.array(tensor.detach().cpu().contiguous().numpy())
    return weights


def put_weights(module: nn.Module, weights: dict[str, np.ndarray]) -> None:
    """Copy weights into a network, keeping its device and memory format.

    Raises
    ------
    UsageError
        Names or shapes are those of another network.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: array.shape for name, array in weights.items()}
    if expected != found:
        wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        raise UsageError(
            f"{wrong[0]}: the weights have {found.get(wrong[0])}, the network needs {expected.get(wrong[0])}; "
            "give the weights of this network"
        )
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(torch.from_numpy(np.array(weights[name])))
