"""The Fourier crop on a device gives what the one of `cryoplug.core.fourier_crop` gives; the CPU stands in where no GPU is."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from cryoplug.core import fourier_crop
from cryoplug.inference.regrid import Regrid
from cryoplug.inference.whole.regrid import finish, merge_high_resolution, resample_image
from cryoplug.machine.devices import OutOfDeviceMemory, device_errors

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIDES = (1, 2, 3, 4, 7, 8, 9, 16)
TOLERANCE = 2e-6
"""Of the range of the result: float32 transforms against float64 ones."""


def noise(*shape: int, mean: float = 0.0, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 9, shape).astype(np.float32)


def on_device(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).to(DEVICE)


def on_host(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return fourier_crop.resample_image(image, shape, resample=fourier_crop.resample_open_axis)


def agree(found: torch.Tensor, wanted: np.ndarray) -> None:
    assert tuple(found.shape) == wanted.shape and found.dtype == torch.float32 and found.is_contiguous()
    # Grey values far from zero are themselves rounded, here as there.
    tolerance = TOLERANCE * max(float(np.ptp(wanted)), 1.0) + np.spacing(np.abs(wanted).max())
    assert np.abs(found.cpu().numpy().astype(np.float64) - wanted).max() <= tolerance


@pytest.mark.parametrize(("before", "after"), list(itertools.product(SIDES, SIDES)))
def test_each_axis_is_cut_and_padded_by_the_same_rules(before, after):
    for shape, small in (((before, 5), (after, 5)), ((6, before), (6, after)), ((before, before), (after, after))):
        image = noise(*shape)
        agree(
            resample_image(on_device(image), small),
            on_host(image, small),
        )


@pytest.mark.parametrize("mean", [0.0, 6802.0])
@pytest.mark.parametrize("small", [(97, 151), (98, 150), (64, 300), (301, 100), (250, 352), (253, 197)])
@pytest.mark.parametrize("shape", [(240, 301), (241, 300)])
def test_images_agree_whatever_their_mean(shape, small, mean):
    image = noise(*shape, mean=mean)
    agree(
        resample_image(on_device(image), small),
        on_host(image, small),
    )


def test_an_image_on_its_own_grid_is_left_as_it_is():
    image = on_device(noise(7, 9))
    assert resample_image(image, (7, 9)) is image


@pytest.mark.parametrize("resolution", [2.0, 3.0, 4.0, 5.5, 1000.0])
@pytest.mark.parametrize("shape", [(48, 60), (49, 61), (1, 8), (8, 1)])
def test_the_same_terms_of_the_raw_image_are_put_back(shape, resolution):
    # Terms lie exactly on the borders of 2, 3 and 4 angstrom.
    denoised, raw = noise(*shape), noise(*shape, mean=3.0, seed=2)
    wanted = fourier_crop.merge_high_resolution(denoised, raw, pixel_size_angstrom=1.0, resolution_angstrom=resolution)
    found = merge_high_resolution(
        on_device(denoised), on_device(raw), pixel_size_angstrom=1.0, resolution_angstrom=resolution
    )
    agree(found, wanted)


@pytest.mark.parametrize("regrid", [Regrid(3.1), Regrid(1.1, 0.3), Regrid(None, 0.0), Regrid(3.0, 0.7, 7.0)])
@pytest.mark.parametrize("shape", [(90, 121), (91, 120)])
def test_the_end_of_the_work_is_the_same_and_the_raw_pixels_stay(shape, regrid):
    plan = regrid.plan(shape, 1.5, path=Path("m.mrc"))
    denoised, raw = noise(*plan.network_shape, mean=100, seed=3), noise(*shape, mean=100)
    kept = on_device(raw)
    agree(finish(on_device(denoised), kept, plan), np.concatenate(list(plan.finish(denoised, raw))))
    assert np.array_equal(kept.cpu().numpy(), raw)


@pytest.mark.parametrize("name", ["CUFFT_ALLOC_FAILED", "CUFFT_INTERNAL_ERROR"])
def test_a_transform_without_room_is_no_failure_of_the_device(name):
    with pytest.raises(OutOfDeviceMemory, match=name), device_errors():
        raise RuntimeError(f"cuFFT error: {name}")
