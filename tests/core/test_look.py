"""One look at a micrograph answers what its readers would find one after another."""

from __future__ import annotations

import numpy as np
import pytest

from cryoplug.core.bad_border import LINES_SEEN
from cryoplug.core.correlation import sample_image
from cryoplug.core.look import look_at
from cryoplug.core.micrograph import ArrayMicrograph, ImageF32
from cryoplug.core.normalization import KINDS, MeasuredSource, fit_to
from cryoplug.core.repairs import RepairedMicrograph
from cryoplug.core.sampled_rows import SAMPLED_ROWS

HOT = ((0, 0), (511, 3), (512, 700), (513, 5), (899, 699))


class Counted(ArrayMicrograph):
    """Counts the rows that are read."""

    read = 0

    def read_rows(self, start: int, stop: int) -> ImageF32:
        self.read += stop - start
        return super().read_rows(start, stop)


def pixels() -> np.ndarray:
    """Make noise with a few hot pixels, also at the borders of what is read at once."""
    image = np.random.default_rng(4).normal(30, 4, (900, 701)).astype(np.float32)
    for y, x in HOT:
        image[y, x] = 5000
    return image


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("repair", [True, False])
def test_a_look_finds_what_separate_readings_find(kind: str, repair: bool) -> None:
    looked = look_at(ArrayMicrograph(pixels()), kind, repair=repair, sample=True)
    plain = RepairedMicrograph(ArrayMicrograph(pixels())) if repair else ArrayMicrograph(pixels())
    assert np.array_equal(looked.source.read_rows(0, 900), plain.read_rows(0, 900))
    assert fit_to(looked, kind) == fit_to(MeasuredSource(plain), kind)
    assert looked.statistics() == MeasuredSource(plain).statistics()
    assert looked.sample is not None
    sample = sample_image(plain)
    assert np.array_equal(looked.sample.low, sample.low)
    assert np.array_equal(looked.sample.blank, sample.blank)
    assert all(np.array_equal(*strips) for strips in zip(looked.sample.strips, sample.strips, strict=True))
    assert [text for text in looked.source.warnings if "hot" in text] == (
        [f"{len(HOT)} hot pixels were replaced by the median of the neighbours"] if repair else []
    )


def test_a_look_reads_each_row_once_and_few_again() -> None:
    source = Counted(np.random.default_rng(4).normal(30, 4, (2048, 1024)).astype(np.float32))
    looked = look_at(source, "robust", repair=True, sample=True)
    fit_to(looked, "robust")
    assert 2048 <= source.read <= 2048 + SAMPLED_ROWS + 2 * LINES_SEEN


def test_pixels_that_are_not_finite_are_counted_by_a_look() -> None:
    image = pixels()
    image[600, 7] = np.nan
    image[3, 9] = np.inf
    looked = look_at(ArrayMicrograph(image), "zscore", repair=True, sample=True)
    assert looked.extremes().nonfinite_count == 2
    assert looked.extremes().first_nonfinite == (3, 9)
    assert looked.sample is None
