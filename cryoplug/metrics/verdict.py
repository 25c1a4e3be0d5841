"""Is a denoiser better than each baseline, and by how many decibels? Numbers only; `reports.words` makes sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryoplug.metrics.baseline_names import BASELINES
from cryoplug.metrics.evaluation import DENOISED, HalvesReport, TruthReport
from cryoplug.metrics.summary import SIGNIFICANT, Requirement, require_better

BETTER, WORSE, ALIKE = "better", "worse", "alike"
JUDGES = ("truth", "halves")


@dataclass(frozen=True)
class Comparison:
    """A denoiser beside one baseline, on the same images."""

    than: str
    """The baseline."""
    answer: str
    """``better`` or ``worse`` by two standard errors of the paired difference (with one image: at all), else ``alike``."""
    gain_db: float
    """Signal-to-noise after the best ``a*x + b``, denoised minus baseline, in dB; an estimate for halves. NaN if unknown."""
    standard_error_db: float
    """Standard error of `gain_db`; NaN with one image."""


@dataclass(frozen=True)
class Verdict:
    """The result of an evaluation in short."""

    judge: str
    """What it was judged by: ``truth``, or ``halves`` (the other half of the exposure, with its own noise)."""
    images: int
    """Number of micrographs or patches that were compared."""
    comparisons: dict[str, Comparison]
    """The comparison with each baseline."""

    @property
    def worst(self) -> str:
        """The worse of two answers (raw micrograph, best Gaussian); it decides whether the denoiser is worth using."""
        answers = {self.comparisons[than].answer for than in ("identity", "gaussian")}
        return next(answer for answer in (WORSE, ALIKE, BETTER) if answer in answers)


def judge(truth: Sequence[TruthReport], halves: Sequence[HalvesReport]) -> Verdict | None:
    """Compare a denoiser with every baseline, by the truth if there is one; None if nothing was measured."""
    if truth:
        pairs = {than: _pairs([item.scores for item in truth], than, "snr_db") for than in BASELINES}
        found = {than: require_better(than, "snr_db", pairs[than]) for than in BASELINES}
        comparisons = {
            than: Comparison(than, _answer(item, len(truth)), item.difference.mean, item.difference.standard_error)
            for than, item in found.items()
        }
        return Verdict("truth", len(truth), comparisons)
    if not halves:
        return None
    pairs = {than: _pairs([item.scores for item in halves], than, "correlation") for than in BASELINES}
    found = {than: require_better(than, "correlation", pairs[than]) for than in BASELINES}
    return Verdict("halves", len(halves), {than: _of_halves(found[than], halves) for than in BASELINES})


def requirement_of(verdict: Verdict | None, than: str) -> bool:
    """Say whether a denoiser is better than a baseline; False if that was not measured."""
    return verdict is not None and than in verdict.comparisons and verdict.comparisons[than].answer == BETTER


def verdict_of_record(record: Any) -> Verdict | None:
    """Read the verdict in a record of an evaluation; None if the record is damaged, or from an older version."""
    try:
        found = {
            str(than): Comparison(
                str(than), str(item["answer"]), _number(item["gain_db"]), _number(item["standard_error_db"])
            )
            for than, item in record["comparisons"].items()
        }
        verdict = Verdict(str(record["judge"]), int(record["images"]), found)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    known = verdict.judge in JUDGES and {"identity", "gaussian"} <= set(found)
    return verdict if known and all(item.answer in (BETTER, WORSE, ALIKE) for item in found.values()) else None


def _pairs(scores: Sequence[Mapping[str, Any]], than: str, measure: str) -> list[tuple[float, float]]:
    return [(getattr(item[DENOISED], measure), getattr(item[than], measure)) for item in scores]


def _answer(requirement: Requirement, count: int) -> str:
    if requirement.met:
        return BETTER
    difference = requirement.difference
    if difference.count < count:
        return WORSE  # a measure that does not exist, as of a constant image
    margin = 0.0 if count == 1 else SIGNIFICANT * difference.standard_error
    return WORSE if difference.mean < -margin else ALIKE


def _of_halves(requirement: Requirement, halves: Sequence[HalvesReport]) -> Comparison:
    """Estimate decibels from correlations with the other half; the standard error comes from leaving out each image."""
    than, count = requirement.than, len(halves)
    gain = _gain_db(than, halves)
    left_out = (
        np.array([_gain_db(than, [*halves[:i], *halves[i + 1 :]]) for i in range(count)]) if count > 1 else np.array([])
    )
    error = float(np.sqrt((count - 1) * left_out.var())) if count > 1 else math.nan
    return Comparison(than, _answer(requirement, count), gain, error)


def _gain_db(than: str, halves: Sequence[HalvesReport]) -> float:
    """Estimate the gain in signal-to-noise over a baseline, from all images together; NaN if noise leaves no estimate.

    Let r be the correlation of the raw half with the unknown truth: ``r^2 = S / (S + N)``. For any other image, its
    correlation with the truth divided by r equals its correlation with the other half divided by that of the raw half. The
    error after the best ``a*x + b`` is one minus the square of the correlation with the truth.
    """
    signal = float(np.mean([item.signal for item in halves]))
    noise = float(np.mean([item.scores["identity"].error for item in halves]))
    raw = float(np.mean([item.scores["identity"].correlation for item in halves]))
    if not (signal > 0 and noise > 0 and raw > 0):
        return math.nan
    errors = []
    for name in (than, DENOISED):
        ratio = float(np.mean([item.scores[name].correlation for item in halves])) / raw
        # What is correlated the wrong way round is as good as nothing.
        errors.append(1 - signal / (signal + noise) * max(ratio, 0.0) ** 2)
    return 10 * math.log10(errors[0] / errors[1]) if min(errors) > 0 else math.nan


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
