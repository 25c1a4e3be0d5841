"""Laws of what is compared between a micrograph and the training data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from cryoplug.core.fourier_crop import resample_image
from cryoplug.formats.registry import open_micrograph
from cryoplug.metrics.appearance import (
    SCALES_PX,
    Seen,
    measure_appearance,
    summarize_appearances,
    unlike,
)
from cryoplug.simulation.micrograph import SimulationSettings, simulate_micrograph


def normalised(image: np.ndarray) -> np.ndarray:
    return ((image - image.mean()) / image.std()).astype(np.float32)


@pytest.fixture(scope="module")
def micrographs() -> list[np.ndarray]:
    settings = SimulationSettings(size_px=384, pixel_size_angstrom=6)
    return [normalised(simulate_micrograph(settings, index).even) for index in range(5)]


@pytest.fixture(scope="module")
def seen(micrographs: list[np.ndarray]) -> Seen:
    found = summarize_appearances([item for image in micrographs[:3] if (item := measure_appearance([image]))])
    assert found is not None
    return found


def test_particles_are_darker_than_the_ice_and_inverting_turns_the_sign_of_every_scale(
    micrographs: list[np.ndarray],
) -> None:
    one, other = measure_appearance([micrographs[0]]), measure_appearance([-micrographs[0]])
    assert one is not None and other is not None
    for side in SCALES_PX:
        assert one.skewness[side] < -0.1
        assert other.skewness[side] == pytest.approx(-one.skewness[side], rel=1e-3)
    assert other.noise_sigma == pytest.approx(one.noise_sigma)


def test_inverted_contrast_is_told_and_the_same_kind_of_micrograph_is_not(
    micrographs: list[np.ndarray], seen: Seen
) -> None:
    for image in micrographs:
        as_is, inverted = measure_appearance([image]), measure_appearance([-image])
        assert as_is is not None and inverted is not None
        assert unlike(as_is, seen) == []
        (text,) = unlike(inverted, seen)
        assert "contrast looks inverted: bright particles on a darker ground, dark particles on a brighter" in text


def test_pure_noise_and_ice_without_particles_are_no_reason_to_warn(seen: Seen) -> None:
    for seed in range(20):
        white = np.random.default_rng(seed).standard_normal((384, 384)).astype(np.float32)
        found = measure_appearance([white])
        assert found is not None and not any("contrast" in text for text in unlike(found, seen))
        for side in SCALES_PX:
            assert abs(found.skewness[side]) < 5 * found.skewness_error[side]


def test_a_sum_of_both_halves_is_like_its_halves(seen: Seen) -> None:
    settings = SimulationSettings(size_px=384, pixel_size_angstrom=6)
    for index in range(3):
        found = measure_appearance([normalised(simulate_micrograph(settings, index).noisy)])
        assert found is not None and unlike(found, seen) == []


def test_noise_of_sigma_one_is_measured_as_one_and_a_slope_does_not_count() -> None:
    rng = np.random.default_rng(0)
    slope = np.linspace(-20, 20, 512)[:, None] + np.linspace(0, 30, 512)[None]
    found = measure_appearance([(slope + rng.standard_normal((512, 512))).astype(np.float32)])
    assert found is not None and found.noise_sigma == pytest.approx(1, rel=0.02)


def test_smoothed_and_enlarged_grey_values_are_told(micrographs: list[np.ndarray], seen: Seen) -> None:
    smooth = micrographs[0].reshape(192, 2, 192, 2).mean(axis=(1, 3)).repeat(2, 0).repeat(2, 1)
    twice = measure_appearance([normalised(np.kron(smooth[::4, ::4], np.ones((4, 4))))])
    assert twice is not None and any("noise of the normalised grey values" in text for text in unlike(twice, seen))
    tenfold = measure_appearance([10 * micrographs[0]])
    assert tenfold is not None and any("standard deviation" in text for text in unlike(tenfold, seen))
    moved = measure_appearance([micrographs[0] + 10])
    assert moved is not None and any(text.startswith("mean of") for text in unlike(moved, seen))


def test_patches_of_a_micrograph_say_what_it_says(micrographs: list[np.ndarray]) -> None:
    image = micrographs[0]
    whole = measure_appearance([image])
    parts = measure_appearance([image[y : y + 128, x : x + 128] for y in (0, 128, 256) for x in (0, 128, 256)])
    assert whole is not None and parts is not None
    assert parts.skewness == pytest.approx(dict(whole.skewness), rel=1e-3)
    assert parts.sigma == pytest.approx(whole.sigma, rel=1e-6)
    assert parts.noise_sigma == pytest.approx(whole.noise_sigma, rel=0.05)


def test_too_small_patches_say_nothing() -> None:
    small = np.random.default_rng(0).standard_normal((31, 400)).astype(np.float32)
    assert measure_appearance([small]) is None and measure_appearance([]) is None
    assert summarize_appearances([]) is None


def test_a_record_survives_json_and_another_one_is_nothing(seen: Seen) -> None:
    assert Seen.from_record(json.loads(json.dumps(seen.record()))) == seen
    bare = dataclasses.replace(seen, noise_sigma=None, noise_level=None)
    assert Seen.from_record(json.loads(json.dumps(bare.record()))) == bare
    good = seen.record()
    for wrong in (
        None,
        [],
        "x",
        {},
        {**good, "mean": 3},
        {**good, "skewness": []},
        {**good, "sigma": [1, float("nan")]},
    ):
        assert Seen.from_record(wrong) is None


def told(image: np.ndarray, *training: Seen) -> bool:
    """Whether an image is called inverted, beside any of these training sets."""
    found = measure_appearance([normalised(image)])
    return found is not None and any("inverted" in text for seen in training for text in unlike(found, seen))


@pytest.mark.parametrize("counts", [0.1, 0.5, 3.0, 40.0])
@pytest.mark.parametrize("kind", ["as counted", "interpolated", "cropped"])
def test_the_skewed_noise_of_counts_claims_no_sign(seen: Seen, counts: float, kind: str) -> None:
    bright = dataclasses.replace(seen, skewness={side: (-mean, s) for side, (mean, s) in seen.skewness.items()})
    for seed in range(4):
        image = np.random.default_rng(seed).poisson(counts, (1025, 1025)).astype(np.float32)
        if kind == "interpolated":
            image = (image[1:, 1:] + image[:-1, 1:] + image[1:, :-1] + image[:-1, :-1]) / 4
        elif kind == "cropped":
            image = resample_image(image, (600, 600))
        found = measure_appearance([normalised(image)])
        assert found is not None and abs(found.skewness[16]) < 4 * found.skewness_error[16]
        assert not any("inverted" in text for known in (seen, bright) for text in unlike(found, known))


def test_one_ice_ball_is_no_proof(seen: Seen) -> None:
    rows, columns = np.ogrid[:600, :600]
    for height in (-30.0, 30.0):
        image = np.random.default_rng(1).standard_normal((600, 600))
        image += height * ((rows - 200) ** 2 + (columns - 420) ** 2 < 60**2)
        assert not told(image, seen)


def test_faint_micrographs_are_never_told_and_ordinary_inverted_ones_are() -> None:
    clear = SimulationSettings(size_px=512, pixel_size_angstrom=2.6)
    seen = summarize_appearances(
        [item for i in range(3) if (item := measure_appearance([normalised(simulate_micrograph(clear, i).even)]))]
    )
    assert seen is not None
    for dose in (0.5, 2.0, 40.0):
        settings = dataclasses.replace(clear, dose_e_per_angstrom2=dose)
        for index in range(10, 13):
            image = simulate_micrograph(settings, index).noisy
            assert not told(image, seen)
            if dose == 40.0:
                assert told(-image, seen)


def test_single_frames_of_apoferritin_and_pieces_of_them_are_not_told(shared_data: Path, seen: Seen) -> None:
    rng = np.random.default_rng(0)
    frames = [_pixels(path) for path in sorted(shared_data.glob("halves_apoferritin/*_ODD.mrc"))]
    sums = [_pixels(path) for path in sorted(shared_data.glob("halves_apoferritin/*_EVN.mrc"))]
    of_sums = summarize_appearances([item for image in sums if (item := measure_appearance([normalised(image)]))])
    assert len(frames) == len(sums) == 4 and of_sums is not None
    for image in frames:
        assert not told(image, seen, of_sums)
        assert not told(image + rng.normal(0, 2, image.shape), seen, of_sums)
        assert not told(resample_image(image, (590, 590)), seen, of_sums)
        for y in (0, 512):
            assert not told(image[y : y + 512, 512:], seen, of_sums)
    assert not any(told(image, seen, of_sums) for image in sums)
    assert sum(told(-image, of_sums) for image in sums) >= 3, "their particles can be seen"


def _pixels(path: Path) -> np.ndarray:
    with open_micrograph(path) as source:
        return source.read_rows(0, source.shape[0])
