"""An evaluation as sections of a page: figures beside the baselines, with a legend of every column, and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cryoplug.metrics.evaluation import DENOISED, HalvesReport, TruthReport
from cryoplug.metrics.summary import Mean
from cryoplug.reports.big_table import Column
from cryoplug.reports.evaluation import METHODS, Summary, mean_text
from cryoplug.reports.evaluation_columns import HALVES_COLUMNS, HINTS, TRUTH_COLUMNS
from cryoplug.reports.evaluation_curves import halves_curves, truth_curves
from cryoplug.reports.html import counted
from cryoplug.reports.sections import Chart, Grid
from cryoplug.reports.svg import Axis, Series, line_chart

STYLES = {DENOISED: 1, "identity": 0, "affine": 4, "gaussian": 2, "wiener": 3, "signal": 5}
METHOD_WORDS = {
    DENOISED: "denoised: what is judged",
    "identity": "identity: the raw micrograph as it is",
    "affine": "affine: the raw micrograph after the best a*x + b",
    "gaussian": "gaussian: the raw micrograph after the best Gaussian blur",
    "wiener": "wiener: the best gain for each frequency, chosen with knowledge of the answer",
}


def summary_grids(summary: Summary, *, pairs: str | None = None) -> list[Grid]:
    """Give a table for each judge (truth, halves), with standard errors and a legend of every column.

    Parameters
    ----------
    summary
        The figures.
    pairs
        Kind of training pairs, as in ``convert --pairs``: single exposures have no halves. None if it does not matter.
    """
    by_half = "noise drawn with the measured spectrum" if pairs == "single" else "the other half of each exposure"
    word, count = ("micrograph", summary.micrographs) if summary.patches is None else ("patch", summary.patches)
    several = f"Means over {counted(count, word, 'patches' if word == 'patch' else None)}, ± standard error."
    methods = f" Rows: {'; '.join(METHOD_WORDS[method] for method in METHODS)}."
    grids: list[Grid] = []
    for means, columns, judge in (
        (summary.truth, TRUTH_COLUMNS, "Judged by the truth."),
        (summary.halves, HALVES_COLUMNS, f"Judged without truth, by {by_half}."),
    ):
        if means:
            caption = f"{judge} {several if count > 1 else f'One {word}.'}{'' if grids else methods}"
            grids.append(_grid(means, columns, caption))
    return grids


def halves_charts(reports: Sequence[HalvesReport], pixel_size_angstrom: float | None) -> list[Chart]:
    """Draw correlation and error in each ring, estimated from halves."""
    curves = halves_curves(reports)
    frequency, x = frequency_axis(curves.frequency, pixel_size_angstrom)
    known = [Series(method, frequency, curve, STYLES.get(method, 0)) for method, curve in curves.known.items()]
    error = [Series(method, frequency, curve, STYLES.get(method, 0)) for method, curve in curves.error.items()]
    error.append(Series("signal", frequency, curves.signal, STYLES["signal"], dashed=True))
    return [
        Chart(
            "Correlation with the unknown truth",
            line_chart(known, x, Axis("correlation", limits=(0.0, 1.05)), title="correlation with the unknown truth"),
            "FRC(De, Ro) / sqrt(FRC(Re, Ro)), estimated from the halves. The higher curve is nearer to the truth. Curves end "
            "where chance alone could be the reason.",
        ),
        Chart(
            "Error in each ring",
            line_chart(error, x, Axis("error B + N", logarithmic=True), title="error in each ring"),
            "Bias and noise together. Below the raw curve, the method gains something. Where a curve lies above the signal, "
            "nothing can be seen at that frequency.",
        ),
    ]


def truth_charts(reports: Sequence[TruthReport], pixel_size_angstrom: float | None) -> list[Chart]:
    """Draw the Fourier ring correlation with the truth."""
    found, curves = truth_curves(reports)
    frequency, x = frequency_axis(found, pixel_size_angstrom)
    series = [Series(method, frequency, curve, STYLES.get(method, 0)) for method, curve in curves.items()]
    return [
        Chart(
            "Correlation with the truth",
            line_chart(series, x, Axis("FRC", limits=(-0.05, 1.05)), title="Fourier ring correlation with the truth"),
            "Fourier ring correlation. The higher curve is nearer to the truth at that detail.",
        )
    ]


def frequency_axis(frequency: np.ndarray, pixel_size_angstrom: float | None) -> tuple[np.ndarray, Axis]:
    """Convert cycles per pixel to 1/A, if the pixel size is known."""
    if pixel_size_angstrom is None:
        return frequency, Axis("frequency (cycles per pixel)")
    return frequency / pixel_size_angstrom, Axis("resolution (Å)", resolution=True)


def _grid(means: Mapping[str, Mapping[str, Mean]], columns: Sequence[tuple[str, str, str]], caption: str) -> Grid:
    heads = [Column("method", "What is judged, and the simple filters that it must beat.", "text")]
    heads += [Column(title, HINTS[name]) for name, title, _ in columns]
    rows = [
        [method, *(mean_text(means[method][name], form).replace("+-", "±") for name, _, form in columns)]
        for method in METHODS
        if method in means
    ]
    return Grid(heads, rows, caption)
