from __future__ import annotations

import itertools

import numpy as np
import pytest

from cryoplug.core.fourier_crop import (
    cropped_shape,
    merge_high_resolution,
    resample_axis,
    resample_image,
    resample_open_axis,
    resample_source,
    resampled_rows,
)
from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.errors import UsageError

SIZES = (1, 2, 3, 4, 7, 8, 9, 12, 15, 16)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def waves(shape: tuple[int, int], highest: int) -> np.ndarray:
    """Sample a sum of plane waves with up to `highest` periods, the same ones whatever the grid."""
    rng = np.random.default_rng(2)
    y, x = (np.arange(side) / side for side in shape)
    image = np.full(shape, 7.0)
    for ky, kx in itertools.product(range(-highest, highest + 1), range(highest + 1)):
        image += rng.normal() * np.cos(2 * np.pi * (ky * y[:, None] + kx * x[None, :]) + rng.uniform(0, 6))
    return image


@pytest.mark.parametrize("small", [(9, 9), (10, 13), (16, 9), (11, 24)])
@pytest.mark.parametrize("large", [(24, 24), (25, 31), (33, 26)])
def test_a_band_limited_image_is_sampled_exactly_in_both_directions(
    small: tuple[int, int], large: tuple[int, int]
) -> None:
    fine, coarse = waves(large, 4), waves(small, 4)
    np.testing.assert_allclose(resample_image(fine, small), coarse, atol=2e-5)
    np.testing.assert_allclose(resample_image(coarse, large), fine, atol=2e-5)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(SIZES, SIZES)))
def test_padding_then_cutting_is_the_identity_and_the_mean_is_kept(before: int, after: int) -> None:
    line = noise(3, before)
    there = resample_axis(line, after, axis=1)
    assert there.shape == (3, after) and there.dtype == np.float32
    np.testing.assert_allclose(there.mean(axis=1), line.mean(axis=1), atol=1e-5)
    if after >= before:
        np.testing.assert_allclose(resample_axis(there, before, axis=1), line, atol=1e-5)
    np.testing.assert_array_equal(resample_axis(line.T, after, axis=0), there.T)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(SIZES, SIZES)))
def test_open_ends_change_the_difference_of_the_ends_alone_and_keep_the_mean(before: int, after: int) -> None:
    line = noise(3, before)
    made = resample_open_axis(line, after, axis=1)
    assert made.shape == (3, after) and made.dtype == np.float32
    np.testing.assert_allclose(made.mean(axis=1), line.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(resample_open_axis(line.T, after, axis=0), made.T, atol=1e-6)
    count = max(1, round(before / after))
    joined = np.concatenate([line[:, :count], line[:, count:-count], line[:, :count]], axis=1)[:, :before]
    if before >= 2 * count:
        np.testing.assert_allclose(
            resample_open_axis(joined, after, axis=1), resample_axis(joined, after, axis=1), atol=1e-5
        )


@pytest.mark.parametrize(("before", "after"), [(200, 77), (77, 200), (128, 64), (101, 100)])
def test_a_step_between_opposite_borders_does_not_ring(before: int, after: int) -> None:
    def slope(side: int) -> np.ndarray:
        places = np.arange(side) / side
        return (100 * places[None, :] + 40 * places[:, None] + np.sin(5 * places[:, None] + 3 * places)).astype(
            np.float32
        )

    wanted = slope(after)
    errors = [
        np.abs(resample_image(slope(before), (after, after), resample=how) - wanted).max()
        for how in (resample_axis, resample_open_axis)
    ]
    assert errors[1] < errors[0] / 10 and errors[1] < 2.0


def test_white_noise_keeps_the_density_of_its_spectrum() -> None:
    # Half the frequencies in each direction hold a quarter of the variance.
    assert resample_image(noise(256, 256), (128, 128)).var() == pytest.approx(0.25, rel=0.05)


def test_what_is_cut_away_is_gone_and_the_rest_untouched() -> None:
    low, high = waves((32, 32), 5), np.cos(2 * np.pi * 13 * np.arange(32) / 32)[None, :] * np.ones((32, 1))
    back = resample_image(resample_image(low + high, (16, 16)), (32, 32))
    np.testing.assert_allclose(back, low, atol=1e-5)


@pytest.mark.parametrize("shape", [(40, 52), (91, 77), (13, 11), (60, 70)])
def test_bands_of_rows_give_the_same_as_the_whole_image(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = noise(60, 70)
    whole = resample_image(image, shape)
    monkeypatch.setattr("cryoplug.core.fourier_crop._BLOCK_PIXELS", 300)
    np.testing.assert_allclose(np.concatenate(list(resampled_rows(image, shape))), whole, atol=1e-6)
    seen = np.zeros_like(image)

    def see(start: int, rows: np.ndarray) -> None:
        seen[start : start + len(rows)] += rows

    np.testing.assert_allclose(resample_source(ArrayMicrograph(image), shape, see), whole, atol=1e-6)
    assert np.array_equal(seen, image)


def test_the_grid_is_the_nearest_to_the_target_and_stays_when_it_fits() -> None:
    assert cropped_shape((4096, 4096), pixel_size_angstrom=1.3, target_angstrom=5.2) == (1024, 1024)
    assert cropped_shape((4092, 5760), pixel_size_angstrom=0.83, target_angstrom=5) == (679, 956)
    assert cropped_shape((100, 200), pixel_size_angstrom=4, target_angstrom=2) == (200, 400)
    assert cropped_shape((100, 200), pixel_size_angstrom=5.04, target_angstrom=5) == (100, 200)
    assert cropped_shape((3, 3), pixel_size_angstrom=1, target_angstrom=100) == (1, 1)
    for size, target in ((0, 5), (1, float("nan")), (-1, 2)):
        with pytest.raises(UsageError, match="allowed: a finite number above 0"):
            cropped_shape((9, 9), pixel_size_angstrom=size, target_angstrom=target)


@pytest.mark.parametrize("shape", [(32, 32), (31, 45), (30, 33)])
def test_merging_takes_every_wave_from_one_of_the_two(shape: tuple[int, int]) -> None:
    raw, denoised = noise(*shape), noise(*shape)[::-1].copy()
    merged = merge_high_resolution(denoised, raw, pixel_size_angstrom=2.0, resolution_angstrom=9.0)
    frequency = np.hypot(np.fft.fftfreq(shape[0], 2.0)[:, None], np.fft.fftfreq(shape[1], 2.0)[None, :])
    expected = np.where(frequency > 1 / 9, np.fft.fft2(raw), np.fft.fft2(denoised))
    np.testing.assert_allclose(np.fft.fft2(merged), expected, atol=1e-3)
    beyond_the_corner = merge_high_resolution(denoised, raw, pixel_size_angstrom=2.0, resolution_angstrom=1.0)
    np.testing.assert_allclose(beyond_the_corner, denoised, atol=1e-6)
