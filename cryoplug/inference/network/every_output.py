"""All outputs of a network at once, for one window on the CPU; for measurements, not for results."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from cryoplug.inference.network.fastest import with_weights
from cryoplug.models.checkpoint import Checkpoint


class EveryOutput:
    """Maps normalised pixels ``(y, x)`` to all outputs ``(outputs, y, x)`` of a checkpoint; errors are those of `Network`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._module = with_weights(checkpoint)

    def __call__(self, pixels: np.ndarray) -> npt.NDArray[np.float32]:
        """Apply the network; near the borders of the window it sees less than elsewhere."""
        with torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(pixels, np.float32))[None, None]
            return np.asarray(self._module(images)[0].float().numpy())
