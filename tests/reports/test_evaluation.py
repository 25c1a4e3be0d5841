from __future__ import annotations

import math

import numpy as np
import pytest

from cryoplug.errors import ShapeError
from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.metrics.evaluation import Agreement, score_against_truth, score_halves
from cryoplug.metrics.hallucination import Hallucination
from cryoplug.reports.evaluation import WIDTH, summarize, table
from cryoplug.reports.evaluation_columns import HALVES_COLUMNS, TRUTH_COLUMNS
from cryoplug.reports.evaluation_figures import evaluation_curves, evaluation_panels

RNG = np.random.default_rng(2)


@pytest.fixture(scope="module")
def reports():
    truth, halves = [], []
    for _ in range(3):
        clean = 6 * gaussian_blur(RNG.standard_normal((96, 96)), 3)
        even, odd = clean + RNG.standard_normal((2, 96, 96))
        blurred = gaussian_blur(even, 1), gaussian_blur(odd, 1)
        truth.append(score_against_truth(even, clean, blurred[0]))
        halves.append(score_halves((even, odd), blurred, ("even", "odd")))
    return truth, halves


def test_a_summary_holds_the_means_of_every_figure(reports):
    truth, halves = reports
    found = summarize(truth, halves, micrographs=3)
    errors = [item.scores["denoised"].error for item in halves]
    assert found.halves["denoised"]["error"].mean == pytest.approx(np.mean(errors))
    assert found.halves["denoised"]["error"].standard_error == pytest.approx(np.std(errors, ddof=1) / math.sqrt(3))
    assert found.truth["wiener"]["ssim"].count == 3
    assert found.agreement is None and found.seam is None and found.requirement is None


def test_the_deviation_is_that_of_the_mean_errors():
    found = summarize([], [], agreement=[Agreement(1.1, 1.0), Agreement(2.8, 3.0)], micrographs=2)
    assert found.agreement["deviation"] == pytest.approx(3.9 / 4 - 1)


def test_a_truth_decides_a_requirement_before_halves_do(reports):
    truth, halves = reports
    both = summarize(truth, halves, micrographs=3, require_better_than="identity").requirement
    alone = summarize([], halves, micrographs=3, require_better_than="identity").requirement
    assert (both.measure, alone.measure) == ("snr_db", "correlation")
    assert both.met and alone.met
    assert not summarize(truth, [], micrographs=3, require_better_than="wiener").requirement.met


def test_the_table_shows_every_method_with_its_error_and_no_lonely_nan(reports):
    truth, halves = reports
    seen = [{"denoised": Hallucination(2.0, 0.5, 0.25, 0.01, 0.1)}]
    text = table(
        summarize(truth, halves, hallucination=seen, seams=[1.0, 1.2], micrographs=3, require_better_than="wiener")
    )
    for method in ("denoised", "identity", "affine", "gaussian", "wiener"):
        assert sum(line.startswith(method) and " +- " in line for line in text.splitlines()) == 4  # two blocks each
    assert "nan" not in text
    assert "2 -> 0.5, 25.0 %" in text and "1.100 +- 0.100" in text and "NOT better than wiener" in text


def test_no_line_is_longer_than_a_terminal_and_every_column_is_explained(reports):
    truth, halves = reports
    seen = [{"denoised": Hallucination(2.0, 0.5, 0.25, 0.01, 0.1)}]
    summary = summarize(truth, halves, hallucination=seen, seams=[1.0], micrographs=3, require_better_than="wiener")
    lines = table(summary).splitlines()
    assert max(map(len, lines)) <= WIDTH == 100
    for _, title, _ in (*TRUTH_COLUMNS, *HALVES_COLUMNS):
        shown = [line for line in lines if line.startswith("method") and title in line]
        assert bool(shown) == any(line.startswith(f"  {title}: ") for line in lines), title
    assert not any(": " in line and line.startswith("  ") for line in table(summary, brief=True).splitlines())


def test_one_micrograph_has_no_standard_error(reports):
    text = table(summarize(reports[0][:1], [], micrographs=1))
    assert "1 micrograph, judged by the truth" in text and "+-" not in text


@pytest.mark.parametrize("which", [(True, True), (True, False), (False, True)])
def test_curves_are_drawn_with_truth_or_halves_or_both(reports, tmp_path, which):
    from matplotlib.image import imread

    truth, halves = (items if wanted else [] for items, wanted in zip(reports, which, strict=True))
    evaluation_curves(tmp_path / "curves.png", truth, halves)
    image = imread(tmp_path / "curves.png")
    assert image.shape[1] / image.shape[0] == pytest.approx(6.4 / 4.4 * (which[0] + 2 * which[1]), rel=0.01)
    assert image.std() > 0.02


def test_panels_are_drawn_each_in_its_own_greys(tmp_path):
    from matplotlib.image import imread

    images = {
        "raw": RNG.standard_normal((64, 80)),
        "flat": np.ones((64, 80)),
        "far": 1e4 + RNG.standard_normal((64, 80)),
    }
    evaluation_panels(tmp_path / "panels.png", images, "title")
    image = imread(tmp_path / "panels.png")
    third = image.shape[1] // 3
    assert image[:, :third].std() > 0.1 and image[:, 2 * third :].std() > 0.1


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ShapeError, match="no reports"):
        evaluation_curves(tmp_path / "curves.png", [], [])
    with pytest.raises(ShapeError, match="no images"):
        evaluation_panels(tmp_path / "panels.png", {}, "")
