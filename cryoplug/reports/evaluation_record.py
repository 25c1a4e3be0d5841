"""An evaluation as plain JSON, as in checkpoint.json, and the table for people made from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cryoplug.core.results import to_json
from cryoplug.metrics.evaluation import HalvesReport, TruthReport
from cryoplug.metrics.halves import HalvesMoments, mean_moments
from cryoplug.metrics.rings import Curve
from cryoplug.metrics.summary import Mean
from cryoplug.metrics.verdict import Verdict, verdict_of_record
from cryoplug.reports.evaluation import Summary, table

FIELD = "evaluation"
"""Field of ``checkpoint.json`` with the evaluation."""
MOST_POINTS = 64
"""Most points of a curve; neighbouring rings are averaged to reach it."""
_DIGITS = 6


def evaluation_record(summary: Summary, curves: Mapping[str, Any]) -> dict[str, Any]:
    """Give plain JSON types with six significant digits: the fields of `Summary`, and the curves."""
    return _rounded({**json.loads(to_json(summary)), "curves": json.loads(to_json(curves))})


def mean_curves(truth: Sequence[TruthReport], halves: Sequence[HalvesReport]) -> dict[str, list[float]]:
    """Average curves over images of one shape.

    Returns
    -------
    dict
        ``frequency`` in cycles per pixel, and for each method the FRC with the truth; without a truth,
        FRC(De, Ro) / sqrt(FRC(Re, Ro)).
    """
    if truth:
        curves = {method: np.mean([item.frc[method] for item in truth], axis=0) for method in truth[0].frc}
        return {name: thinned(curve) for name, curve in {"frequency": truth[0].frequency, **curves}.items()}
    frequency = halves[0].frequency
    shown = slice(1, int(np.searchsorted(frequency, 0.5 + 1e-9)))
    found = {"frequency": thinned(frequency[shown])}
    for method in halves[0].rings:
        # Variances are averaged, not ratios: a ratio of two small numbers has no mean.
        moments = vars(mean_moments([item.rings[method] for item in halves]))
        pooled = {name: np.array(thinned(np.asarray(value)[shown])) for name, value in moments.items()}
        found[method] = [float(value) for value in np.asarray(HalvesMoments(**pooled).truth_correlation)]
    return found


def table_of_record(record: Any, *, pairs: str | None = None) -> str | None:
    """Write the table of a record of `evaluation_record`; None for anything else, because files may come from elsewhere."""
    summary = summary_of_record(record)
    return None if summary is None else table(summary, brief=True, pairs=pairs)


def summary_of_record(record: Any) -> Summary | None:
    """Read a record of `evaluation_record`, without agreement, seams, requirement and verdict; None for anything else."""
    try:
        summary = Summary(
            micrographs=int(record["micrographs"]),
            patches=None if record["patches"] is None else int(record["patches"]),
            truth=_means(record["truth"]),
            halves=_means(record["halves"]),
            directions=tuple(str(side) for side in record["directions"]),
            noise_ratio=None if record["noise_ratio"] is None else _mean(record["noise_ratio"]),
            agreement=None,
            hallucination=_means(record["hallucination"]),
            seam=None,
            requirement=None,
        )
        table(summary, brief=True)  # every figure that it shows must be there
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    return summary


def recorded_verdict(details: Mapping[str, Any]) -> Verdict | None:
    """Read the verdict from the details of a ``checkpoint.json``; None if it has none, as in older versions."""
    evaluation = details.get(FIELD)
    return verdict_of_record(evaluation.get("verdict")) if isinstance(evaluation, dict) else None


def recorded_pairs(details: Mapping[str, Any]) -> str | None:
    """Read the kind of training pairs from the details of a ``checkpoint.json``; None if it has none, or garbage."""
    pairs = details.get("pairs")
    return pairs if isinstance(pairs, str) else None


def _means(record: Any) -> dict[str, dict[str, Mean]] | None:
    if record is None:
        return None
    return {
        str(method): {str(name): _mean(value) for name, value in figures.items()} for method, figures in record.items()
    }


def _mean(record: Any) -> Mean:
    numbers = [float("nan") if record[name] is None else float(record[name]) for name in ("mean", "standard_error")]
    return Mean(numbers[0], numbers[1], int(record["count"]))


def thinned(curve: Curve) -> list[float]:
    """Average neighbouring rings until `MOST_POINTS` are left."""
    groups = np.array_split(curve, min(MOST_POINTS, len(curve)))
    return [float(group.mean()) for group in groups]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
