"""Counts from zero up are told from every other grey scale."""

from __future__ import annotations

import numpy as np
import pytest

from cryoplug.core.grey_scale import measure_grey_scale, normalization_remark, percentile_remark
from cryoplug.core.normalization import Normalization

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("mean", [0.3, 1, 8, 40, 300, 1500])
def test_counts_are_counts_with_hot_pixels_and_a_few_negatives_too(mean: float) -> None:
    counts = RNG.poisson(mean, (64, 512)).astype(np.float32)
    counts[3, 4] = 45804
    counts[:, :2] -= 2 * mean  # interpolation: 0.4 % of the pixels
    found = measure_grey_scale(counts)
    assert found is not None and found.counts_from_zero and found.words == "counts from zero up"


@pytest.mark.parametrize("mean", [0.0, 0.5, -3.0, 100.0, 6800.0, -6800.0])
def test_any_other_grey_scale_is_told_with_its_reason(mean: float) -> None:
    pixels = RNG.normal(mean, 1.0, (64, 512))
    found = measure_grey_scale(pixels.astype(np.float32))
    assert found is not None and not found.counts_from_zero
    assert ("below zero" in found.words) == (mean < 50) and ("far from zero" in found.words) == (mean > 50)


@pytest.mark.parametrize("sign", ["int8", "int16", "uint16", "float16"])
def test_the_type_of_a_pixel_does_not_decide(sign: str) -> None:
    counts = RNG.poisson(40, (64, 512)).astype(sign)
    around = RNG.normal(0 if sign != "uint16" else 30000, 20, (64, 512)).astype(sign)
    one, other = measure_grey_scale(counts), measure_grey_scale(around)
    assert one is not None and one.counts_from_zero
    assert other is not None and not other.counts_from_zero


def test_nothing_is_said_of_nothing() -> None:
    assert measure_grey_scale(np.array([np.nan, np.inf, 3.0])) is None
    flat = measure_grey_scale(np.zeros((4, 4)))
    assert flat is not None and not flat.counts_from_zero


def test_one_sentence_says_what_is_lost_and_what_to_do() -> None:
    assert percentile_remark(0.05, 0.1) == ""
    for text in (percentile_remark(0.53, 0.3), percentile_remark(0.05, 0.0013)):
        assert "use convert --normalize zscore, and a checkpoint trained on that store" in text
    assert "clips 53 %" in percentile_remark(0.53, 0.3) and "0.0013 of 1" in percentile_remark(0.05, 0.0013)
    high = Normalization("percentile", scale=6815.0, clip_low=0.0, clip_high=1.0)
    assert normalization_remark(high, clipped=0.05, sigma=9.0) == percentile_remark(0.05, 9 / 6815)
    assert normalization_remark(Normalization("zscore", scale=9.0), clipped=0.9, sigma=0.001) == ""
