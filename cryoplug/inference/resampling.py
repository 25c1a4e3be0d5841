"""The transforms of `cryoplug.core.fourier_crop` by torch: the same numbers, faster, also where a side is a prime number."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from cryoplug.core.fourier_crop import at_each_end, ends_apart
from cryoplug.core.micrograph import ImageF32

if TYPE_CHECKING:
    import torch


def resample_on_host(pixels: np.ndarray, size: int, *, axis: int) -> ImageF32:
    """Cut or pad an array along one axis to `size` samples, as `cryoplug.core.fourier_crop.resample_open_axis`; in float64."""
    if pixels.shape[axis] == size:
        return np.array(pixels, np.float32)
    import torch

    exact = torch.from_numpy(np.array(pixels, np.float64, order="C"))
    return resample_axis(exact, size, axis=axis).to(torch.float32).contiguous().numpy()


def resample_axis(pixels: torch.Tensor, size: int, *, axis: int) -> torch.Tensor:
    """Cut or pad a tensor along one axis to `size` samples, in its own precision; `pixels` itself when it has that size."""
    before = int(pixels.shape[axis])
    if before == size:
        return pixels
    import torch

    count, smaller = at_each_end(before, size), min(before, size)
    first, last = (pixels.narrow(axis, at, count).mean(dim=axis, keepdim=True) for at in (0, before - count))
    terms = torch.fft.rfft(pixels, dim=axis, norm="forward").narrow(axis, 0, smaller // 2 + 1)
    if smaller % 2 == 0:
        nyquist = terms.select(axis, smaller // 2)
        if size < before:
            nyquist.copy_(2.0 * nyquist.real)
        else:
            nyquist.mul_(0.5)
    # It puts zeros behind the terms where the grid has more.
    made = torch.fft.irfft(terms, n=size, dim=axis, norm="forward")
    lacks = _ends_apart(before, size, made.dtype, made.device)
    return made.addcmul_(last - first, lacks if axis == made.ndim - 1 else lacks[:, None])


@functools.cache
def _ends_apart(before: int, size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Give `ends_apart` on a device. It is kept for good: a recording of the GPU's work may read it."""
    import torch

    return torch.from_numpy(ends_apart(before, size)).to(dtype).to(device)
