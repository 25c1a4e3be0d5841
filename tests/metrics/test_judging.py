"""Laws of judging one image: it measures what the images allow, and nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.metrics.evaluation import choose_directions, score_against_truth, score_halves
from cryoplug.metrics.judging import Images, judge


@pytest.fixture(scope="module")
def images() -> Images:
    random = np.random.default_rng(1)
    clean = gaussian_blur(random.standard_normal((96, 80)).astype(np.float32), 3.0) * 20
    even, odd = (clean / 2 + random.standard_normal(clean.shape).astype(np.float32) for _ in range(2))
    made = {
        f"denoised{side}": gaussian_blur(raw, 2.0) for side, raw in (("", even + odd), ("_even", even), ("_odd", odd))
    }
    return Images(even + odd, clean, even, odd, **made)


def blur(image: np.ndarray) -> np.ndarray:
    return gaussian_blur(image, 2.0)


def test_all_that_there_is_is_measured_and_as_each_measure_says_by_itself(images: Images) -> None:
    found = judge(images, denoise=blur)
    assert images.noisy is not None and images.clean is not None and images.denoised is not None
    truth = score_against_truth(images.noisy, images.clean, images.denoised)
    raw, made = (images.even, images.odd), (images.denoised_even, images.denoised_odd)
    halves = score_halves(raw, made, choose_directions(*raw, wanted="auto", has_odd=True))  # type: ignore[arg-type]
    assert found.truth is not None and str(found.truth.scores) == str(truth.scores)
    assert found.halves is not None and str(found.halves.scores) == str(halves.scores)
    assert found.agreement is not None and found.hallucination is not None and found.denoised_noise is not None


@pytest.mark.parametrize("missing", ["even odd denoised_even denoised_odd", "clean denoised"])
def test_what_is_not_there_is_not_measured(images: Images, missing: str) -> None:
    found = judge(dataclasses.replace(images, **dict.fromkeys(missing.split())))
    assert (found.halves is None) == ("even" in missing) and (found.truth is None) == ("clean" in missing)
    assert found.agreement is None and found.hallucination is None and found.denoised_noise is None


def test_noise_is_denoised_also_where_only_halves_are(images: Images) -> None:
    found = judge(dataclasses.replace(images, noisy=None, clean=None, denoised=None), denoise=blur)
    assert found.halves is not None and found.truth is None and found.hallucination is not None


def test_one_denoised_half_is_judged_by_the_other_raw_one(images: Images) -> None:
    found = judge(dataclasses.replace(images, denoised_odd=None), direction="even")
    assert found.halves is not None and found.halves.directions == ("even",)


def test_the_picture_shows_what_was_judged(images: Images) -> None:
    assert images.source is images.noisy and images.made is images.denoised
    halves = dataclasses.replace(images, denoised=None)
    assert halves.source is images.even and halves.made is images.denoised_even
    odd = dataclasses.replace(halves, denoised_even=None)
    assert odd.source is images.odd and odd.made is images.denoised_odd


def test_threads_change_no_figure(images: Images) -> None:
    alone, together = (judge(images, denoise=blur, threads=threads) for threads in (1, 3))
    assert repr(alone.truth) == repr(together.truth)
    assert alone.halves is not None and together.halves is not None
    assert repr(alone.halves.scores) == repr(together.halves.scores)
    for method, moments in alone.halves.rings.items():
        assert np.array_equal(moments.across, together.halves.rings[method].across)
