from __future__ import annotations

import math

import pytest

from cryoplug.metrics.summary import mean_of, require_better


def test_mean_and_standard_error_are_the_textbook_ones():
    found = mean_of([1.0, 2.0, 3.0, 4.0, math.nan])
    assert (found.mean, found.count) == (2.5, 4)
    assert found.standard_error == pytest.approx(math.sqrt(5 / 3) / 2)
    assert math.isnan(mean_of([1.0]).standard_error) and math.isnan(mean_of([]).mean)


@pytest.mark.parametrize(
    ("pairs", "met"),
    [
        ([(2.0, 1.0), (3.1, 2.0), (4.0, 3.1)], True),
        ([(2.0, 1.0), (2.0, 3.1), (4.0, 3.1)], False),
        ([(1.0, 1.0), (1.0, 1.0)], False),
        ([(1.1, 1.0)], True),
        ([(1.0, 1.0)], False),
        ([(2.0, 1.0), (math.nan, 1.0)], False),
        ([], False),
    ],
)
def test_better_means_two_standard_errors_above_nothing(pairs, met):
    assert require_better("gaussian", "snr_db", pairs).met is met


def test_correlations_are_compared_relatively():
    found = require_better("gaussian", "correlation", [(0.022, 0.02), (0.33, 0.3)])
    assert found.difference.mean == pytest.approx(0.1)
    assert found.met
