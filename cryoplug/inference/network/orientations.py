"""The mean of what a network makes of the eight orientations of an image.

A micrograph turned or mirrored is as good a micrograph, so the eight answers differ by the network's own errors only, and
their mean has less of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cryoplug.errors import UsageError

if TYPE_CHECKING:
    import torch

COUNT = 8
"""Quarter turns of an image and of its mirror image."""
ASKED = ("auto", "on", "off")
"""What can be asked for."""


def averages_orientations(asked: str, device: torch.device, *, angpix: float | None) -> bool:
    """Decide whether a network is asked in all orientations.

    ``auto``: where that is cheap beside all the rest, on a GPU and at a pixel size that micrographs are cropped to.

    Parameters
    ----------
    asked
        One of `ASKED`.
    device
        Where the network runs.
    angpix
        Pixel size that it sees; None: each micrograph's own.

    Raises
    ------
    UsageError
        `asked` is none of them.
    """
    if asked not in ASKED:
        raise UsageError(f"--tta {asked!r} (allowed: {', '.join(ASKED)})")
    return asked == "on" or (asked == "auto" and device.type == "cuda" and angpix is not None)


def mean_over_orientations(network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Apply a network to images in all orientations, turn the results back and average them.

    Parameters
    ----------
    network
        Maps ``(b, 1, y, x)`` to ``(b, outputs, y, x)``.
    images
        Sides are multiples of the network's pooling grid, so that the grid of a turned image is the turned grid.
    """
    total: torch.Tensor | None = None
    for mirrored in (False, True):
        for turns in range(4):
            turned = (images.flip(3) if mirrored else images).rot90(turns, (2, 3))
            back = network(turned).rot90(-turns, (2, 3))
            back = back.flip(3) if mirrored else back
            total = back.clone() if total is None else total.add_(back)
    assert total is not None
    return total.div_(COUNT)
