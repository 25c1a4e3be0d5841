from __future__ import annotations

import numpy as np
import pytest

from cryoplug.errors import UsageError
from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.metrics.seams import seam_ratio

IMAGE = gaussian_blur(np.random.default_rng(0).standard_normal((256, 192)), 2)


def test_an_image_without_seams_has_a_ratio_of_one():
    assert seam_ratio(IMAGE, range(0, 256, 32), range(0, 192, 32)) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_seam_that_no_eye_would_find_is_found(axis):
    seamy = IMAGE.copy()
    seamy[(slice(128, None), slice(None)) if axis == 0 else (slice(None), slice(96, None))] += 0.5 * IMAGE.std()
    found = seam_ratio(seamy, [128] if axis == 0 else [], [96] if axis == 1 else [])
    steps = np.square(np.diff(IMAGE, axis=axis)).mean()
    assert found == pytest.approx(1 + 0.25 * IMAGE.var() / steps, rel=0.3)
    assert seam_ratio(seamy, [64], [64]) == pytest.approx(1, abs=0.4)


def test_no_border_no_ratio():
    assert np.isnan(seam_ratio(IMAGE, [0], [192]))
    assert np.isnan(seam_ratio(np.ones((64, 64)), [32], [32]))


def test_borders_outside_are_refused():
    with pytest.raises(UsageError, match="0 to 256"):
        seam_ratio(IMAGE, [300], [])
