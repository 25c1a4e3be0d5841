"""The transforms by torch are those of `cryoplug.core.fourier_crop`, whatever the sides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryoplug.core import fourier_crop
from cryoplug.inference.resampling import resample_axis, resample_on_host


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [1, 2, 31, 32, 61, 64, 97, 100, 163])
@pytest.mark.parametrize("side", [31, 64, 97])
def test_an_axis_is_cut_and_padded_as_by_numpy(side: int, size: int, axis: int) -> None:
    pixels = np.random.default_rng(side).normal(6800, 9, (side, side)).astype(np.float32)
    before = pixels.copy()
    found = resample_on_host(pixels, size, axis=axis)
    wanted = fourier_crop.resample_open_axis(pixels, size, axis=axis)
    assert found.dtype == np.float32 and found.flags.c_contiguous and found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 2 * np.spacing(np.float32(6800)), "computed in float64"
    assert np.array_equal(pixels, before)


def test_what_has_the_size_already_is_copied() -> None:
    pixels = np.ones((4, 5), np.float32)
    found = resample_on_host(pixels, 5, axis=1)
    assert np.array_equal(found, pixels) and not np.shares_memory(found, pixels)


def test_a_tensor_keeps_its_precision() -> None:
    for kind in (torch.float32, torch.float64):
        assert resample_axis(torch.ones(4, 6, dtype=kind), 3, axis=1).dtype == kind
