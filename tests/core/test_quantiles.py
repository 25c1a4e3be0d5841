"""Exact quantiles agree with numpy, whatever a sample says of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.quantiles import QuantileSearch, quantiles_by_bits, sorted_finite, stream_quantiles
from cryoplug.core.sampled_rows import read_sampled_rows
from cryoplug.errors import PixelError, UsageError

IMAGES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    elements=st.floats(-1e6, 1e6, width=32),
)
WANTED = ([0.001, 0.999], [0.1587, 0.5, 0.8413], [0.95], [0.0, 1.0])


@given(IMAGES, st.lists(st.floats(0, 1), min_size=1, max_size=4), st.integers(1, 4))
def test_quantiles_are_those_of_numpy(pixels: np.ndarray, fractions: list[float], band_rows: int) -> None:
    found = stream_quantiles(ArrayMicrograph(pixels), fractions, band_rows=band_rows)
    exact = np.quantile(pixels.astype(np.float64), fractions)
    assert np.allclose(found, exact, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 0.95, 1.0])
def test_quantiles_of_the_positive_pixels_are_the_founding_percentile(fraction: float) -> None:
    pixels = np.random.default_rng(1).normal(0.2, 3, (211, 307)).astype(np.float32)
    (found,) = stream_quantiles(ArrayMicrograph(pixels), [fraction], positive_only=True, band_rows=13)
    assert np.float32(found) == pytest.approx(np.percentile(pixels[pixels > 0], 100 * fraction), rel=1e-6)


def test_quantiles_span_the_whole_range_of_float32() -> None:
    pixels = np.array([[-3.4e38, -1e-45, -0.0], [0.0, 1e-45, 3.4e38]], np.float32)
    found = stream_quantiles(ArrayMicrograph(pixels), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert np.array_equal(np.float32(found), np.sort(pixels.ravel()))


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_quantiles_refuse_what_has_no_rank(bad: float) -> None:
    with pytest.raises(PixelError, match="NaN or infinite"):
        stream_quantiles(ArrayMicrograph(np.array([[1.0, bad]])), [0.5])


def test_quantiles_of_no_positive_pixel_are_refused() -> None:
    with pytest.raises(PixelError, match="no pixel is above zero"):
        stream_quantiles(ArrayMicrograph(-np.ones((2, 2))), [0.5], positive_only=True)


def test_fractions_outside_of_0_to_1_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\[95\]; allowed: 0 to 1"):
        stream_quantiles(ArrayMicrograph(np.ones((2, 2))), [95])


def grey_values(name: str) -> np.ndarray:
    """Make images whose quantiles are hard to find."""
    rng = np.random.default_rng(2)
    noise = rng.normal(20, 5, (300, 400)).astype(np.float32)
    y = np.arange(300, dtype=np.float32)[:, None]
    return {
        "noise": noise,
        "few counts": rng.poisson(0.4, noise.shape).astype(np.float32),
        "counts": rng.poisson(40, noise.shape).astype(np.float32),
        "masked": np.where(y < 100, np.float32(0), noise),
        "gradient": noise + y,
        "negative": -noise,
        "rows that the sample does not see": np.where(y % 300 == 1, np.float32(1000), noise),
    }[name]


@pytest.mark.parametrize("fractions", WANTED)
@pytest.mark.parametrize("name", ["noise", "few counts", "counts", "masked", "gradient", "negative"])
def test_the_search_gives_the_pixels_that_counting_bits_gives(name: str, fractions: list[float]) -> None:
    source = ArrayMicrograph(grey_values(name))
    search = QuantileSearch(sorted_finite(read_sampled_rows(source)), source.shape, fractions)
    for start in range(0, source.shape[0], 64):
        search.add(source.read_rows(start, min(start + 64, source.shape[0])))
    assert search.quantiles() == quantiles_by_bits(source, fractions)
    if name != "negative":
        exact = quantiles_by_bits(source, fractions, positive_only=True)
        assert stream_quantiles(source, fractions, positive_only=True) == exact


def test_a_sample_unlike_the_image_costs_time_and_no_accuracy() -> None:
    source = ArrayMicrograph(grey_values("rows that the sample does not see"))
    misled = QuantileSearch(np.zeros(1200, np.float32), source.shape, [0.5])
    misled.add(source.read_rows(0, 300))
    assert misled.quantiles() is None
    for fractions in WANTED:
        assert stream_quantiles(source, fractions) == quantiles_by_bits(source, fractions)


def test_the_search_keeps_a_small_part_of_the_pixels() -> None:
    source = ArrayMicrograph(np.random.default_rng(3).normal(0, 1, (2048, 2048)).astype(np.float32))
    search = QuantileSearch(sorted_finite(read_sampled_rows(source)), source.shape, [0.001, 0.5, 0.999])
    search.add(source.read_rows(0, 2048))
    kept = sum(part.size for interval in search._intervals for part in interval.parts)
    assert search.quantiles() is not None
    assert kept < 0.06 * 2048**2
