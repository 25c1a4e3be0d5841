"""A moving average of the weights: less noisy than the last weights, so it is validated and kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from cryoplug.training.weights import put_weights, weights_of


class WeightAverage:
    """An exponential moving average of all weights of a network.

    After step n each average a becomes ``d a + (1 - d) w`` with ``d = min(decay, (1 + n) / (10 + n))``, so the first steps
    are soon forgotten.

    Parameters
    ----------
    module
        The network; the average begins with its present weights.
    decay
        Above 0, below 1; 0.999 looks back over about 1000 steps.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._decay = decay
        self._averages = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        self._stepped: dict[str, np.ndarray] | None = None

    def weight_of_step(self, step: int) -> float:
        """Return the weight 1 - d with which the weights after `step` steps enter the average."""
        return 1.0 - min(self._decay, (1 + step) / (10 + step))

    def update(self, step: int) -> None:
        """Add the weights after `step` steps to the average."""
        self.blend(self.weight_of_step(step))

    def blend(self, part: float | torch.Tensor) -> None:
        """Blend the present weights into the average; `part` may be a tensor on their device."""
        with torch.no_grad():
            for name, tensor in self._module.state_dict().items():
                self._averages[name].lerp_(tensor, part)

    def weights(self) -> dict[str, np.ndarray]:
        """Return a copy of the averages, by state key."""
        return {name: np.array(tensor.cpu().contiguous().numpy()) for name, tensor in self._averages.items()}

    def stepped_weights(self) -> dict[str, np.ndarray]:
        """Return a copy of the weights of training, also while the averages are in the network."""
        return weights_of(self._module) if self._stepped is None else self._stepped

    def load(self, weights: dict[str, np.ndarray]) -> None:
        """Set the averages to those of an earlier part of the run."""
        for name, tensor in self._averages.items():
            tensor.copy_(torch.from_numpy(np.array(weights[name])))

    @contextlib.contextmanager
    def in_the_network(self) -> Iterator[None]:
        """Within this context, put the averages into the network, to measure or apply them."""
        self._stepped = weights_of(self._module)
        put_weights(self._module, self.weights())
        try:
            yield
        finally:
            put_weights(self._module, self._stepped)
            self._stepped = None
