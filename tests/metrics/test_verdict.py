"""Laws of the verdict: its decibels are those of the truth, with truth and without; a damaged record is none."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from typing import Any

import numpy as np
import pytest

from cryoplug.core.results import to_json
from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.metrics.evaluation import HalvesReport, TruthReport, score_against_truth, score_halves
from cryoplug.metrics.pixel import correlation
from cryoplug.metrics.truth import fitted_snr_db
from cryoplug.metrics.verdict import ALIKE, BETTER, WORSE, Verdict, judge, requirement_of, verdict_of_record

SIDE = 256


@functools.cache
def exposure(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = gaussian_blur(rng.standard_normal((SIDE, SIDE)), 3) * 12
    return truth, *(truth + 1.5 * rng.standard_normal((SIDE, SIDE)) for _ in range(2))


def by_truth(denoise: Any, seeds: range = range(4)) -> Verdict:
    found: list[TruthReport] = []
    for seed in seeds:
        truth, noisy, _ = exposure(seed)
        found.append(score_against_truth(noisy, truth, denoise(noisy, truth)))
    verdict = judge(found, [])
    assert verdict is not None
    return verdict


def by_halves(denoise: Any, seeds: range = range(4)) -> tuple[Verdict, float]:
    """Give the verdict, and the true gain over the raw half in decibel."""
    found: list[HalvesReport] = []
    gains = []
    for seed in seeds:
        truth, even, odd = exposure(seed)
        made = denoise(even, truth), denoise(odd, truth)
        found.append(score_halves((even, odd), made, ("even", "odd")))
        if np.ptp(made[0]) > 0:
            gains.append(fitted_snr_db(correlation(made[0], truth)) - fitted_snr_db(correlation(even, truth)))
    verdict = judge([], found)
    assert verdict is not None
    return verdict, float(np.mean(gains)) if gains else math.nan


@pytest.mark.parametrize(
    ("denoise", "identity", "gaussian"),
    [
        (lambda noisy, truth: 0.2 * noisy + 0.8 * truth, BETTER, BETTER),
        (lambda noisy, truth: gaussian_blur(noisy, 1.2), BETTER, WORSE),
        (lambda noisy, truth: noisy + np.random.default_rng(9).standard_normal(noisy.shape), WORSE, WORSE),
        (lambda noisy, truth: noisy, ALIKE, WORSE),
        (lambda noisy, truth: np.full_like(noisy, 3.0), WORSE, WORSE),
    ],
)
def test_truth_and_halves_come_to_the_same_answer(denoise: Any, identity: str, gaussian: str) -> None:
    for verdict in (by_truth(denoise), by_halves(denoise)[0]):
        assert verdict.comparisons["identity"].answer == identity
        assert verdict.comparisons["gaussian"].answer == gaussian
        assert requirement_of(verdict, "identity") is (identity == BETTER)


def test_decibels_without_truth_are_those_with_it() -> None:
    verdict, gain = by_halves(lambda noisy, truth: gaussian_blur(noisy, 2.5))
    assert verdict.comparisons["identity"].gain_db == pytest.approx(gain, abs=0.4)
    assert verdict.judge == "halves"
    assert verdict.images == 4


def test_of_a_single_image_there_is_no_standard_error() -> None:
    verdict = by_truth(lambda noisy, truth: 0.5 * (noisy + truth), range(1))
    assert verdict.comparisons["identity"].answer == BETTER
    assert math.isnan(verdict.comparisons["identity"].standard_error_db)


def test_nothing_measured_is_no_verdict_and_not_better() -> None:
    assert judge([], []) is None
    assert not requirement_of(None, "identity")


def test_a_record_is_read_back() -> None:
    verdict = by_truth(lambda noisy, truth: gaussian_blur(noisy, 2.0), range(1))
    again = verdict_of_record(json.loads(to_json(verdict)))
    assert again is not None
    assert to_json(again) == to_json(verdict)


@pytest.mark.parametrize(
    "change",
    [
        {"judge": "nobody"},
        {"comparisons": {}},
        {"comparisons": {"identity": 3, "gaussian": 4}},
        {"comparisons": None},
        {"images": None},
    ],
)
def test_a_damaged_record_is_none(change: dict[str, Any]) -> None:
    verdict = by_truth(lambda noisy, truth: noisy, range(1))
    record = json.loads(to_json(verdict))
    assert verdict_of_record({**record, **change}) is None
    assert verdict_of_record(None) is None
    wrong = dataclasses.replace(verdict, comparisons=dict(verdict.comparisons))
    wrong.comparisons["identity"] = dataclasses.replace(wrong.comparisons["identity"], answer="rm -rf")
    assert verdict_of_record(json.loads(to_json(wrong))) is None
