"""Laws of hot pixels: lone ones are repaired, things in the ice and the grain of the noise are left alone."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from cryoplug.core.hot_pixels import HotPixels, find_hot_pixels, grey_limits
from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.repairs import RepairedMicrograph, repaired_image
from cryoplug.core.sampled_rows import sampled_rows


def micrograph(mean: float = 6800.0, sigma: float = 9.0, shape: tuple[int, int] = (300, 330)) -> np.ndarray:
    return np.random.default_rng(0).normal(mean, sigma, shape).astype(np.float32)


def repaired(image: np.ndarray) -> tuple[np.ndarray, HotPixels]:
    made, repairs = repaired_image(image)
    return made, repairs.hot


def disc(image: np.ndarray, y: int, x: int, radius: int) -> np.ndarray:
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


@pytest.mark.parametrize(("mean", "sigma"), [(6800.0, 9.0), (0.0, 1.0), (-30.0, 4.0), (12.0, 3.4), (1e-4, 1e-5)])
def test_lone_and_dead_pixels_at_any_place_become_the_median_of_their_neighbours(mean: float, sigma: float) -> None:
    image = micrograph(mean, sigma)
    places = [(0, 0), (0, 329), (299, 0), (299, 329), (150, 160), (20, 0), (77, 78), (7, 200)]
    spoilt = image.copy()
    for number, place in enumerate(places):
        spoilt[place] = mean + (-1) ** number * (12 + 10.0**number) * sigma
    made, hot = repaired(spoilt)
    assert sorted(zip(hot.y.tolist(), hot.x.tolist(), strict=True)) == sorted(places)
    assert np.abs(hot.values - mean).max() < 2 * sigma
    rest = np.ones(image.shape, bool)
    rest[hot.y, hot.x] = False
    assert np.array_equal(made[rest], image[rest]), "nothing else is touched"
    assert f"{len(places)} hot pixels were replaced" in hot.remark


@pytest.mark.parametrize("clump", [(1, 2), (2, 2), (3, 3), (3, 1), (1, 9)])
def test_small_clumps_are_hot_pixels_too(clump: tuple[int, int]) -> None:
    image = micrograph()
    image[40 : 40 + clump[0], 50 : 50 + clump[1]] = 30000
    made, hot = repaired(image)
    assert len(hot) == clump[0] * clump[1]
    assert np.abs(made - 6800).max() < 6 * 9


@pytest.mark.parametrize("radius", [4, 5, 8, 20, 60])
@pytest.mark.parametrize("height", [-30.0, 15.0, 400.0])
def test_ice_balls_and_gold_are_not_touched(radius: int, height: float) -> None:
    image = micrograph()
    image[disc(image, 120, 140, radius)] += height * 9.0
    image[disc(image, 0, 300, radius)] += height * 9.0
    made, hot = repaired(image)
    assert not len(hot) and hot.remark == "" and np.array_equal(made, image)


def test_a_hot_pixel_beside_an_ice_ball_is_found_and_the_ball_stays() -> None:
    image = micrograph()
    inside = disc(image, 150, 150, 60)
    image[inside] += 20 * 9
    image[20, 20] = image[280, 300] = 45804
    made, hot = repaired(image)
    assert list(zip(hot.y.tolist(), hot.x.tolist(), strict=True)) == [(20, 20), (280, 300)]
    assert np.array_equal(made[inside], image[inside])


def test_the_soft_shoulder_of_a_thick_place_is_no_hot_pixel() -> None:
    image = micrograph()
    rows, columns = np.ogrid[:300, :330]
    image += (11 * 9 * np.exp(-((rows - 150) ** 2 + (columns - 150) ** 2) / (2 * 60.0**2))).astype(np.float32)
    assert not len(repaired(image)[1])


@pytest.mark.parametrize("counts", [0.01, 0.05, 0.2, 1.0, 40.0])
def test_the_grain_of_few_counts_is_hardly_touched(counts: float) -> None:
    image = np.random.default_rng(1).poisson(counts, (512, 512)).astype(np.float32)
    assert len(repaired(image)[1]) <= 30, "of 262,144"


def test_pixels_that_are_not_finite_are_left_for_others_to_refuse() -> None:
    image = micrograph()
    image[3, 4], image[200, 7], image[100, 100] = np.nan, np.inf, 1e9
    made, hot = repaired(image)
    assert len(hot) == 1 and np.isnan(made[3, 4]) and np.isinf(made[200, 7])


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3), (5, 5)])
def test_tiny_and_constant_images_survive(shape: tuple[int, int]) -> None:
    for image in (np.full(shape, 7.0, np.float32), micrograph(shape=shape)):
        assert np.array_equal(repaired(image)[0], image)


@pytest.mark.parametrize("width", [40, 3000])
def test_bands_of_a_file_give_what_the_whole_image_gives(width: int) -> None:
    image = micrograph(shape=(900, width))
    rng = np.random.default_rng(2)
    places = rng.integers(0, 900, 200), rng.integers(0, width, 200)
    image[places] = 1e5
    image[85:88, 5:8] = -1e5  # across a border of bands
    source = RepairedMicrograph(ArrayMicrograph(image))
    made, hot = repaired(image)
    assert len(hot) > 150
    assert np.array_equal(source.read_rows(0, 900), made)
    assert np.array_equal(source.read_rows(83, 91), made[83:91]), "in any order, in any part"


def test_rows_without_a_candidate_may_be_left_out() -> None:
    image = micrograph()
    image[3, 4] = image[299, 0] = 1e6

    def read(start: int, stop: int) -> np.ndarray:
        return image[start:stop]

    limits = grey_limits(image[sampled_rows(300)])
    few = [(3, image[3:4]), (299, image[299:300])]
    hot = find_hot_pixels(read, (300, 330), few, limits)
    assert hot.values.tolist() == repaired(image)[1].values.tolist()


def test_a_large_micrograph_takes_no_time() -> None:
    image = np.random.default_rng(0).normal(3500, 600, (4096, 4096)).astype(np.float32)
    rng = np.random.default_rng(3)
    image[rng.integers(0, 4096, 1600), rng.integers(0, 4096, 1600)] = 45804
    times = []
    for _ in range(3):
        start = time.process_time()
        hot = repaired(image)[1]
        times.append(time.process_time() - start)
    assert len(hot) > 1500
    assert min(times) < 0.5, "about 40 ms where nothing else runs"


@pytest.mark.parametrize("inside", [-8.0, -10.0, -12.0], ids=["darker", "at the limit", "beyond it"])
def test_a_huge_ice_ball_takes_hardly_more_time_than_none(inside: float) -> None:
    image = np.random.default_rng(0).normal(0, 1, (2048, 2048)).astype(np.float32)
    ball = image + np.where(disc(image, 1000, 1000, 450), np.float32(inside), np.float32(0))

    def seconds(pixels: np.ndarray) -> float:
        times = []
        for _ in range(5):
            start = time.process_time()
            assert not len(repaired(pixels)[1])
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(ball) < 6 * seconds(image), "2.5 times at the most where nothing else runs; it was 20 times"


def test_a_real_micrograph_loses_its_hot_pixels_and_one_with_an_ice_ball_nothing(shared_data: Path) -> None:
    from cryoplug.formats.registry import open_micrograph

    with open_micrograph(shared_data / "micrographs" / "Ucsf_stack_1142_DW.mrc") as source:
        image = source.read_rows(0, source.shape[0])
    assert not len(repaired(image)[1])
    image[17, 33] = 7200
    assert len(repaired(image)[1]) == 1
