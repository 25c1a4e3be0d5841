from __future__ import annotations

import numpy as np
import pytest

from cryoplug.core.correlation import (
    Correlation,
    ImageSample,
    binning,
    high_correlation,
    low_correlations,
    sample_image,
)
from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.errors import ShapeError
from cryoplug.formats.registry import open_micrograph


def sample(pixels: np.ndarray) -> ImageSample:
    return sample_image(ArrayMicrograph(pixels.astype(np.float32)))


def noise(seed: int, shape: tuple[int, int] = (300, 400)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def best(one: ImageSample, two: ImageSample) -> Correlation:
    return max(low_correlations(one, two), key=lambda item: item.significance)


@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (97, 131), (300, 400), (900, 2000), (1025, 1100)])
def test_a_sample_holds_box_means_and_rows_of_the_image(shape):
    pixels = noise(1, shape).astype(np.float32)
    found, box = sample(pixels), binning(shape)
    rows, columns = shape[0] // box, shape[1] // box
    expected = pixels[: rows * box, : columns * box].reshape(rows, box, columns, box).mean((1, 3))
    np.testing.assert_allclose(found.low, expected, atol=1e-5)
    for strip in found.strips:
        start = next(y for y in range(shape[0]) if np.array_equal(pixels[y], strip[0]))
        np.testing.assert_array_equal(strip, pixels[start : start + len(strip)])


def test_unrelated_noise_stays_within_its_own_error():
    pairs = [(sample(noise(2 * i)), sample(noise(2 * i + 1))) for i in range(40)]
    for band in range(3):
        scores = [low_correlations(*pair)[band].significance for pair in pairs]
        assert abs(np.mean(scores)) < 0.6
        assert 0.6 < np.std(scores) < 1.4
    high = [high_correlation(*pair).significance for pair in pairs]
    assert abs(np.mean(high)) < 0.6
    assert 0.6 < np.std(high) < 1.4


def test_gradients_that_unrelated_exposures_share_prove_nothing():
    slope = np.add.outer(np.linspace(0, 30, 300), np.linspace(0, 20, 400))
    assert best(sample(noise(1) + slope), sample(noise(2) + slope)).significance < 4


def test_the_correlation_is_the_part_of_the_power_that_is_shared():
    shared = noise(1, (512, 512))
    one, two = (sample(shared + noise(seed, (512, 512))) for seed in (2, 3))
    for found in (*low_correlations(one, two), high_correlation(one, two)):
        assert found.value == pytest.approx(0.5, abs=4 * found.error)
        assert found.significance > 3


def test_a_pattern_near_nyquist_is_seen_there_and_not_below():
    pattern = 0.7 * noise(9)
    pattern[:, 1:] -= pattern[:, :-1].copy()
    pattern[1:] -= pattern[:-1].copy()
    one, two = sample(noise(1, (1024, 1024)) + np.tile(pattern, (4, 3))[:1024, :1024]), None
    two = sample(noise(2, (1024, 1024)) + np.tile(pattern, (4, 3))[:1024, :1024])
    assert high_correlation(one, two).value > 0.3
    assert best(one, two).value < 0.3


def test_images_without_power_near_nyquist_have_no_figure_there():
    smooth = np.outer(np.hanning(300), np.hanning(400))
    assert high_correlation(sample(smooth), sample(noise(1))) is None
    assert high_correlation(sample(np.zeros((300, 400))), sample(noise(1))) is None


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (20, 20)])
def test_what_is_too_small_or_constant_proves_nothing(shape):
    assert best(sample(noise(1, shape)), sample(noise(1, shape))).significance < 20
    assert best(sample(np.ones(shape)), sample(noise(1, shape))).value == 0


def test_shapes_must_agree():
    with pytest.raises(ShapeError, match=r"\(300, 400\) and \(40, 40\)"):
        low_correlations(sample(noise(1)), sample(noise(1, (40, 40))))


def test_real_pairs_are_far_above_chance_and_crossed_ones_are_not(shared_data):
    folder = shared_data / "halves_apoferritin"
    names = sorted(path.name.removesuffix("_EVN.mrc") for path in folder.glob("*_EVN.mrc"))
    sides = []
    for side in ("EVN", "ODD"):
        sides.append([])
        for name in names:
            with open_micrograph(folder / f"{name}_{side}.mrc") as source:
                sides[-1].append(sample_image(source))
    even, odd = sides
    true = [best(one, two) for one, two in zip(even, odd, strict=True)]
    crossed = [best(even[i], odd[j]) for i in range(4) for j in range(4) if i != j]
    assert min(item.significance for item in true) > 9
    assert max(item.significance for item in crossed) < 3
    assert max(high_correlation(one, two).value for one, two in zip(even, odd, strict=True)) < 0.02
    # The means of 41 frames share what their gain reference left: the pattern that a warning is for.
    assert high_correlation(even[0], even[1]).value > 0.1
