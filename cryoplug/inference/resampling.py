"""The transforms of `cryoplug.core.fourier_crop` by torch: the same numbers, faster, also where a side is a prime number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryoplug.core.micrograph import ImageF32

if TYPE_CHECKING:
    import torch


def resample_on_host(pixels: np.ndarray, size: int, *, axis: int) -> ImageF32:
    """Cut or pad an array along one axis to `size` samples, as `cryoplug.core.fourier_crop.resample_axis`; in float64."""
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

    smaller = min(before, size)
    terms = torch.fft.rfft(pixels, dim=axis, norm="forward").narrow(axis, 0, smaller // 2 + 1)
    if smaller % 2 == 0:
        nyquist = terms.select(axis, smaller // 2)
        if size < before:
            nyquist.copy_(2.0 * nyquist.real)
        else:
            nyquist.mul_(0.5)
    # It puts zeros behind the terms where the grid has more.
    return torch.fft.irfft(terms, n=size, dim=axis, norm="forward")
