"""What a user reads first: better or worse, by how much, judged by what, and what to do next."""

from __future__ import annotations

import math

import pytest

from cryoplug.metrics.verdict import ALIKE, BETTER, WORSE, Comparison, Verdict
from cryoplug.reports.words import DENOISERS, required_words, verdict_words


def verdict(identity: tuple[str, float], gaussian: tuple[str, float], judge: str = "truth") -> Verdict:
    found = {
        than: Comparison(than, answer, gain, 0.1)
        for than, (answer, gain) in {"identity": identity, "gaussian": gaussian}.items()
    }
    return Verdict(judge, 5, found)


@pytest.mark.parametrize(
    ("identity", "gaussian", "first"),
    [
        (
            (BETTER, 3.2),
            (BETTER, 1.1),
            "Better than the raw micrograph (+3.20 +- 0.10 dB) and than the best Gaussian blur (+1.10 +- 0.10 dB).",
        ),
        ((WORSE, -1.9), (WORSE, -3.0), "WORSE than the raw micrograph (-1.90 +- 0.10 dB). Worse than doing nothing."),
        (
            (BETTER, 2.0),
            (WORSE, -0.5),
            "WORSE than the best Gaussian blur (-0.50 +- 0.10 dB). Better than the raw micrograph (+2.00 +- 0.10 dB).",
        ),
        ((ALIKE, 0.0), (ALIKE, 0.0), "NO BETTER than the raw micrograph (+0.00 +- 0.10 dB)."),
        (
            (BETTER, 2.0),
            (ALIKE, 0.1),
            "Better than the raw micrograph (+2.00 +- 0.10 dB). NO BETTER than the best Gaussian blur (+0.10 +- 0.10 dB).",
        ),
    ],
)
def test_the_first_line_says_it(identity: tuple[str, float], gaussian: tuple[str, float], first: str) -> None:
    lines = verdict_words(verdict(identity, gaussian))
    assert lines[0] == first
    assert lines[1] == "Judged on 5 images by the truth."
    assert lines[-1].startswith("Next: ")
    worst = WORSE if WORSE in (identity[0], gaussian[0]) else None
    assert ("Do not use" in lines[-1]) is (worst is not None)


@pytest.mark.parametrize("answer", [BETTER, WORSE])
def test_the_founding_recipe_says_what_it_is_however_it_ends(answer: str) -> None:
    lines = verdict_words(verdict((answer, 1.0), (answer, 1.0)), pairs="noise")
    assert "raw micrograph (" not in lines[0]  # what it was compared with is its own noisy input
    text = " ".join(lines)
    for part in ("artificial noise", "below the raw micrograph", "--pairs halves", "--pairs single", "general model"):
        assert part in text
    assert "artificial noise" in " ".join(verdict_words(None, pairs="noise"))


def test_what_was_judged_without_truth_says_so() -> None:
    halves = verdict((BETTER, 1.0), (BETTER, 1.0), "halves")
    assert "other half" in verdict_words(halves)[1]
    assert "as good as that spectrum" in verdict_words(halves, pairs="single")[1]
    # Patches of one held-out micrograph are less than so many micrographs.
    assert verdict_words(halves, pairs="halves")[1].startswith("Judged on 5 patches without truth")
    assert "Do not use this denoiser" in verdict_words(verdict((WORSE, -1), (WORSE, -1)), denoiser="other")[-1]


@pytest.mark.parametrize("denoiser", DENOISERS)
@pytest.mark.parametrize("answer", [WORSE, ALIKE])
def test_nobody_is_advised_to_take_what_was_just_judged(denoiser: str, answer: str) -> None:
    advice = verdict_words(verdict((BETTER, 1), (answer, -1)), denoiser=denoiser)[-1]
    assert ("cryoplug denoise without --checkpoint" in advice) is (denoiser != "general")
    assert ("--init general" in advice) is (denoiser == "general")


def test_particles_are_not_condemned_for_the_ice_that_they_leave_out() -> None:
    lost = ((WORSE, -3.0), (WORSE, -3.0))
    lines = verdict_words(verdict(*lost, "halves"), denoiser="general", target="particles")
    assert lines[0].startswith("WORSE")  # the number stands, with what it means behind it
    assert "leaves the ice out" in lines[-2] and "picker" in lines[-1]
    assert "picker" not in verdict_words(verdict(*lost), target="particles")[-1]  # a truth may be without ice
    assert "picker" not in verdict_words(verdict(*lost, "halves"), target="image")[-1]


def test_decibels_that_do_not_exist_are_not_printed() -> None:
    assert "dB" not in verdict_words(verdict((BETTER, math.nan), (BETTER, math.nan)))[0]


def test_what_was_required_is_met_not_met_or_not_known() -> None:
    assert "met (+1.00" in required_words(verdict((BETTER, 1.0), (ALIKE, 0.0)), "identity")
    assert "NOT met" in required_words(verdict((BETTER, 1.0), (ALIKE, 0.0)), "gaussian")
    assert "NOT known" in required_words(None, "gaussian")
    assert "NOT known" in required_words(verdict((BETTER, 1.0), (ALIKE, 0.0)), "wiener")
