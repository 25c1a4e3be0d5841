"""A network applied to one tile: filled up to its pooling grid, and in all orientations where that is wanted."""

from __future__ import annotations

import torch

from cryoplug.inference.network.fastest import Fits, Network
from cryoplug.models.unet import mirrored_beyond


class TileNetwork:
    """Maps normalised pixels ``(y, x)``, float32 on the network's device, to denoised ones.

    Parameters
    ----------
    network
        What is asked.
    multiple
        Its pooling grid: sides that it takes are multiples of this.
    tta
        Whether to give the mean over eight orientations.
    """

    def __init__(self, network: Network, *, multiple: int, tta: bool) -> None:
        self.network = network
        """What is asked."""
        self.multiple = multiple
        """Its pooling grid."""
        self._tta = tta

    def __call__(self, pixels: torch.Tensor, fits: Fits = None) -> torch.Tensor:
        """Apply the network; what comes back is as large as the pooling grid makes it, and begins where `pixels` does."""
        return self.many(pixels[None], fits)[0]

    def many(self, images: torch.Tensor, fits: Fits = None) -> torch.Tensor:
        """Apply the network to several images of one shape, ``(n, y, x)``, at once; for `fits` see it."""
        # inference_mode belongs to a thread, so every worker enters it.
        with torch.inference_mode():
            padded = filled_up(images[:, None], self.multiple)
            if self._tta:
                return self.network.averaged(padded, fits)[:, 0]
            return self.network(padded.contiguous(memory_format=self.network.layout), fits)[:, 0]


def filled_up(images: torch.Tensor, multiple: int) -> torch.Tensor:
    """Mirror images at the bottom and on the right up to a network's pooling grid; only the image's own border gets it."""
    bottom, right = (-side % multiple for side in images.shape[-2:])
    return mirrored_beyond(images, bottom, right)
