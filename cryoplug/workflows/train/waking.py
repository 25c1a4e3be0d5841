"""Before a trained network learns further, cryoplug wakes its channels that are never on in the user's micrographs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryoplug.store.pairs import PairStore

if TYPE_CHECKING:
    import torch
    from torch import nn

LOOKED_AT = 24
"""Crops to look at, all over the training micrographs."""
SIDE = 256
"""Largest side of these crops."""


def wake_dormant(module: nn.Module, store: PairStore, indices: np.ndarray, *, seed: int, device: torch.device) -> int:
    """Wake the dormant channels of a `unet` without norms, which is on `device`; give their number.

    Other networks stay as they are, and so does one that does not fit into a patch of the store.
    """
    import torch

    from cryoplug.models.unet import UNet
    from cryoplug.training.dormant import wake

    if not isinstance(module, UNet) or module.normed:
        return 0
    grid = module.stem << module.depth
    height, width = (min(SIDE, side) // grid * grid for side in store.patch_shape)
    if not (height and width):
        return 0
    chosen = indices[np.unique(np.linspace(0, len(indices) - 1, LOOKED_AT).round().astype(int))]
    patch, other = (np.empty((1, *store.patch_shape), np.float32) for _ in range(2))
    images = np.empty((len(chosen), 1, height, width), np.float32)
    for image, index in zip(images, chosen, strict=True):
        store.read([int(index)], patch, other)
        image[0] = patch[0, :height, :width]
    return wake(module, torch.from_numpy(images).to(device), seed=seed)
