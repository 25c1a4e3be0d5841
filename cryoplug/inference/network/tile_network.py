"""Apply a network to one tile: fill it up to the pooling grid, and average over eight orientations on request."""

from __future__ import annotations

import torch

from cryoplug.inference.network.fastest import Fits, Network
from cryoplug.models.unet import mirrored_beyond


class TileNetwork:
    """Denoises normalised pixels ``(y, x)``, float32 on the network's device.

    Parameters
    ----------
    network
        The network.
    multiple
        Spacing of its pooling grid; sides of its input are multiples of this.
    tta
        Whether to give the mean over eight orientations.
    """

    def __init__(self, network: Network, *, multiple: int, tta: bool) -> None:
        self.network = network
        """The network."""
        self.multiple = multiple
        """Spacing of its pooling grid in pixels."""
        self._tta = tta

    def __call__(self, pixels: torch.Tensor, fits: Fits = None) -> torch.Tensor:
        """Apply the network; the result may be larger, up to the pooling grid, and begins at the same pixel."""
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
    """Mirror images at the bottom and on the right up to the pooling grid; only tiles at the image border need it."""
    bottom, right = (-side % multiple for side in images.shape[-2:])
    return mirrored_beyond(images, bottom, right)
