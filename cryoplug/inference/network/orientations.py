"""The mean of a network's results for the eight orientations of an image.

A turned or mirrored micrograph is as good as the original. So the eight results differ only by the network's own errors, and
their mean has smaller errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cryoplug.errors import UsageError

if TYPE_CHECKING:
    import torch

COUNT = 8
"""Number of orientations: four quarter turns of an image, and of its mirror image."""
ASKED = ("auto", "on", "off")
"""Values of ``--tta``."""


def averages_orientations(asked: str, device: torch.device, *, angpix: float | None) -> bool:
    """Decide whether to average a network over all orientations.

    ``auto`` does so where it is cheap compared with the rest: on a GPU, if micrographs are cropped to a pixel size.

    Parameters
    ----------
    asked
        One of `ASKED`.
    device
        Where the network runs.
    angpix
        Pixel size that it sees; None for each micrograph's own.

    Raises
    ------
    UsageError
        `asked` is not one of these.
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
