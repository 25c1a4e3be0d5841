"""Count, range, mean and deviation of pixels on a device; with Triton in one pass.

Torch takes four passes, and one of them writes all pixels again in float64: 0.7 ms for 4096x4096 on an H200.
"""

from __future__ import annotations

import functools
import importlib.util
import math

import torch

_PIECE = 4096
_MERGED = 1024


def measure(pixels: torch.Tensor, low: float | None = None, high: float | None = None) -> torch.Tensor:
    """Measure the finite pixels of an image; the host does not wait for the device.

    Parameters
    ----------
    pixels
        float32, contiguous.
    low, high
        Range to which pixels are clipped first; give both or none.

    Returns
    -------
    torch.Tensor
        Six numbers, float64, on the device: finite pixels, finite pixels above zero, smallest, largest, mean, standard
        deviation (division by n). Without a finite pixel, mean and deviation are NaN.
    """
    if pixels.is_cuda and _has_triton():
        return measure_by_triton(pixels, low, high)
    clipped = pixels if low is None else pixels.clamp(low, high)
    finite = pixels.isfinite()
    exact = clipped.double()
    number = finite.sum()
    mean = torch.where(finite, exact, 0.0).sum() / number
    squares = torch.where(finite, exact - mean, 0.0).square_().sum()
    return torch.stack(
        [
            number.double(),
            (finite & (clipped > 0)).sum().double(),
            torch.where(finite, exact, math.inf).amin(),
            torch.where(finite, exact, -math.inf).amax(),
            mean,
            (squares / number).sqrt(),
        ]
    )


def measure_by_triton(pixels: torch.Tensor, low: float | None = None, high: float | None = None) -> torch.Tensor:
    """Do the work of `measure` in Triton, on a GPU or in Triton's interpreter."""
    from cryoplug.kernels import triton_measuring

    pieces = -(-pixels.numel() // _PIECE)
    found = torch.empty((6, pieces), dtype=torch.float64, device=pixels.device)
    result = torch.empty(6, dtype=torch.float64, device=pixels.device)
    clips = low is not None and high is not None
    limits = (low, high) if clips else (0.0, 0.0)
    triton_measuring.measure_pieces[(pieces,)](
        pixels, found, pixels.numel(), pieces, *limits, CLIPS=clips, SIZE=_PIECE, num_warps=8
    )
    triton_measuring.merge_pieces[(1,)](found, result, pieces, SIZE=_MERGED, num_warps=8)
    return result


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
