"""Continue an image beyond its border before a network sees it, so that the border is not seen in the result.

The layers of a network put zeros outside. To one that learnt from pixels between 0 and 1 they are black: its outermost rows
came out 10 to 300 standard deviations too dark. So the image is continued by its mirror image first, without repeating the
border itself, and the network's own zeros lie outside of that. See docs/decisions/0022-what-surrounds-the-network.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryoplug.core.micrograph import ImageF32
from cryoplug.core.tiling import Tile

if TYPE_CHECKING:
    import torch

MOST_PX = 16
"""A network that looks farther gets no more: 8 pixels bring the error in the first row of a U-Net from 1.41 times that inside
to 1.02, as 64 do, and every pixel costs time."""


def border_width(overlap_px: int, multiple: int) -> int:
    """Give by how much an image is continued on each side.

    Parameters
    ----------
    overlap_px
        How far the network looks, rounded up to `multiple`.
    multiple
        Its pooling grid, whose place must not move.
    """
    return min(overlap_px, -(-MOST_PX // multiple) * multiple)


def band_borders(band: Tile, *, overlap_px: int, width_px: int) -> tuple[int, int]:
    """Give by how many rows a band is continued above and below: none unless the border of the image is in sight of it."""
    above = overlap_px - (band.paste.y0 - band.read.y0)
    below = overlap_px - (band.read.y1 - band.paste.y1)
    return min(above, width_px), min(below, width_px)


def continued(rows: ImageF32, above: int, below: int, side: int) -> ImageF32:
    """Give rows of full width with their mirror image above, below, and on both sides."""
    return np.pad(rows, ((above, below), (side, side)), mode="reflect")


def continued_on_device(pixels: torch.Tensor, width_px: int) -> torch.Tensor:
    """Give a whole image ``(y, x)`` on a device with its mirror image on all sides."""
    import torch

    if width_px < min(pixels.shape):
        return torch.nn.functional.pad(pixels[None, None], (width_px,) * 4, mode="reflect")[0, 0]
    y, x = (
        torch.from_numpy(np.pad(np.arange(side), width_px, mode="reflect")).to(pixels.device) for side in pixels.shape
    )
    return pixels[y[:, None], x[None]]
