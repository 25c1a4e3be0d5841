"""Contents of Doppio's results tab: text, tables, curves, pictures, the page of the run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryoplug.metrics.evaluation import DENOISED
from cryoplug.metrics.summary import Mean
from cryoplug.reports.evaluation import HALVES_COLUMNS, METHODS, TRUTH_COLUMNS, mean_text
from cryoplug.reports.evaluation_sections import HINTS
from pipeliner.display_tools import create_results_display_object
from pipeliner.results_display_objects import ResultsDisplayObject, ResultsDisplayPending

MOST_IMAGES = 500
"""Most images in a carousel, as in Pipeliner's own jobs."""
_NOTHING = Mean(math.nan, math.nan, 0)
"""Stands in for a figure that was not measured."""


def nothing_yet(reason: str) -> ResultsDisplayObject:
    """Show the reason why there are no results."""
    return ResultsDisplayPending(message="There are no results yet", reason=reason)


def text(title: str, lines: Iterable[str], *, data: Sequence[str], flag: str = "") -> ResultsDisplayObject:
    """Show some lines of text; a flag is shown as a warning."""
    return create_results_display_object(
        "text", title=title, display_data="\n".join(lines), associated_data=list(data), flag=flag
    )


def carousel(title: str, images: Sequence[str], *, list_name: str) -> ResultsDisplayObject:
    """Show pictures one by one; if there are very many, only the first ones."""
    shown = list(images[:MOST_IMAGES])
    if len(shown) < len(images):
        title = f"{title}: the first {len(shown)} of {len(images)}"
    return create_results_display_object(
        "carousel", title=title, image_names=shown, image_index_file=list_name, associated_data=[list_name]
    )


def image(title: str, path: Path, *, description: str, data: Sequence[str]) -> ResultsDisplayObject:
    """Show one picture."""
    return create_results_display_object(
        "image", title=title, image_path=str(path), image_desc=description, associated_data=list(data)
    )


def page(title: str, path: Path) -> ResultsDisplayObject:
    """Show a report: one HTML file that needs no network."""
    return create_results_display_object("html", title=title, html_file=str(path), associated_data=[str(path)])


def logfile(path: Path) -> ResultsDisplayObject:
    """Show the PDF of a job."""
    return create_results_display_object("pdffile", title="Log file", file_path=str(path), start_collapsed=True)


def losses(path: Path) -> ResultsDisplayObject:
    """Draw the loss of every epoch, from ``metrics.jsonl``."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    series = {
        label: [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]
        for label, key in (("training", "train_loss"), ("validation", "val_loss"))
    }
    shown = {label: points for label, points in series.items() if points}
    return create_results_display_object(
        "graph",
        title="Loss of each epoch",
        xvalues=[[epoch for epoch, _ in points] for points in shown.values()],
        yvalues=[[loss for _, loss in points] for points in shown.values()],
        data_series_labels=list(shown),
        xaxis_label="Epoch",
        yaxis_label=f"Loss ({rows[-1]['loss_name']})",
        modes=["lines+markers"],
        associated_data=[str(path)],
    )


def evaluation_tables(summary: Mapping[str, Any], *, source: str) -> list[ResultsDisplayObject]:
    """Show the means of an evaluation, as the command prints them.

    Parameters
    ----------
    summary
        The means, as in ``evaluation.json`` or ``checkpoint.json``.
    source
        The file that holds them.
    """
    tables = []
    for judge, columns, by in (("truth", TRUTH_COLUMNS, "the truth"), ("halves", HALVES_COLUMNS, "the other half")):
        means = {method: _means(scores) for method, scores in (summary.get(judge) or {}).items()}
        shown = [column for column in columns if any(column[0] in found for found in means.values())]
        if means and shown:
            tables.append(
                create_results_display_object(
                    "table",
                    title=f"Beside simple filters, judged by {by}",
                    headers=["method", *(caption for _, caption, _ in shown)],
                    header_tooltips=["method", *(HINTS[key] for key, _, _ in shown)],
                    table_data=[
                        [method, *(mean_text(means[method].get(key, _NOTHING), form) for key, _, form in shown)]
                        for method in METHODS
                        if method in means
                    ],
                    associated_data=[source],
                )
            )
    return tables


def scores_of(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Give the means of the denoiser for the metadata of a project, by judge and figure."""
    return {
        judge: {key: value.mean for key, value in _means(summary[judge][DENOISED]).items()}
        for judge in ("truth", "halves")
        if summary.get(judge)
    }


def _means(scores: Mapping[str, Any]) -> dict[str, Mean]:
    """Read the figures of a method; figures that were not measured are left out."""
    return {
        key: Mean(
            value["mean"], math.nan if value["standard_error"] is None else value["standard_error"], value["count"]
        )
        for key, value in scores.items()
        if value is not None and value["mean"] is not None
    }
