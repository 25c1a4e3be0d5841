"""The page of a training run: losses, verdict, held-out pairs through the network, and its frequency response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryoplug.core.micrograph import ImageF32
from cryoplug.metrics.evaluation import DENOISED
from cryoplug.reports.evaluation_record import FIELD, summary_of_record
from cryoplug.reports.evaluation_sections import STYLES, frequency_axis, summary_grids
from cryoplug.reports.grey_panels import panels
from cryoplug.reports.html import counted, shown_duration, shown_number
from cryoplug.reports.sections import Chart, Facts, Page, Section, sections_page
from cryoplug.reports.svg import Axis, Series, line_chart

_LEAST, _MOST = 0.02, 1.3
RESPONSE_FIELD = "response"
"""Name of the response in the curves of an evaluation record: frequencies in cycles per pixel, and gains."""


@dataclass(frozen=True, eq=False)
class Example:
    """One held-out pair and the output of the network, ``(y, x)``, normalised."""

    noisy: ImageF32
    """Input of the network."""
    target: ImageF32
    """The other side of the pair: the other half, or the truth."""
    denoised: ImageF32
    """Output of the network."""


def training_page(
    folder: Path,
    records: Sequence[Mapping[str, Any]],
    details: Mapping[str, Any],
    words: Sequence[str],
    *,
    about: Sequence[tuple[str, str]],
    examples: Sequence[Example] = (),
    best_epoch: int | None = None,
    pixel_size_angstrom: float | None = None,
) -> str:
    """Write the page.

    Parameters
    ----------
    folder
        Folder of the run.
    records
        One record for each epoch, as in ``metrics.jsonl``.
    details
        Details of the kept checkpoint, as in ``checkpoint.json``.
    words
        The verdict.
    about
        Names and values: what was trained, and how.
    examples
        A few held-out pairs; none if only files of the run are left.
    best_epoch
        The epoch that is kept.
    pixel_size_angstrom
        Pixel size that the network sees; None if unknown.
    """
    sections = [_examples(examples, details.get("pairs"), pixel_size_angstrom)] if examples else []
    if len(records) > 1:  # the curves of one epoch would be points
        sections.append(training_section(records, best_epoch))
    sections += evaluation_sections(details, pixel_size_angstrom)
    sections.append(Section("What was trained", [Facts(about)]))
    seconds = sum(float(record.get("seconds") or 0) for record in records)
    last = records[-1] if records else {}
    kept = next((record for record in records if record.get("epoch") == best_epoch), {})
    loss = kept.get("val_loss", kept.get("train_loss"))
    tiles = [
        ("epochs", f"{len(records):,}", ""),
        ("epoch that is kept", str(best_epoch or "-"), ""),
        ("its validation loss" if "val_loss" in kept else "its training loss", shown_number(loss), ""),
        ("training time", shown_duration(seconds), ""),
        ("patches a second", shown_number(last.get("samples_per_s"), 3), ""),
    ]
    headline = f"Trained for {counted(len(records), 'epoch')}"
    return sections_page(Page("train", headline, str(folder), sections, words, tiles))


def training_section(records: Sequence[Mapping[str, Any]], best_epoch: int | None) -> Section:
    """Draw the losses and the pace."""
    epochs = [float(record["epoch"]) for record in records]
    name = records[-1].get("loss_name", "mse") if records else "mse"
    losses = []
    for style, (key, label) in enumerate((("train_loss", "training"), ("val_loss", "validation")), start=0):
        values = [_number(record.get(key)) for record in records]
        if np.isfinite(values).any():
            losses.append(Series(label, epochs, values, 2 if style == 0 else 1, points=len(records) < 40))
    if best_epoch is not None and losses:
        at = [index for index, epoch in enumerate(epochs) if epoch == best_epoch]
        if at:
            curve = np.asarray(losses[-1].y)
            losses.append(Series("kept", [epochs[at[0]]], [float(curve[at[0]])], 3, points=True))
    label = "mean squared error" if name == "mse" else f"loss ({name})"
    whole = len(records) < 8
    x = Axis("epoch", limits=(min(epochs) - 0.3, max(epochs) + 0.3) if whole and epochs else None, whole=True)
    pace = [
        Series(
            "patches a second",
            epochs,
            [_number(record.get("samples_per_s")) for record in records],
            2,
            points=len(records) < 40,
        )
    ]
    return Section(
        "How training went",
        [
            Chart(
                "Loss",
                line_chart(losses, x, Axis(label, logarithmic=True), title="training and validation loss"),
                "Both should fall and then level out. If validation rises while training falls, the network learns its "
                "patches by heart: use more micrographs. If both still fall at the end, train longer.",
            ),
            Chart(
                "Pace",
                line_chart(pace, x, Axis("patches a second"), title="patches a second"),
                "It should be flat. A fall means that something else used the machine, or that the disk was too slow.",
            ),
        ],
    )


def evaluation_sections(details: Mapping[str, Any], pixel_size_angstrom: float | None) -> list[Section]:
    """Give the sections of the evaluation at the end of a run; none if there was no evaluation."""
    record = details.get(FIELD)
    summary = summary_of_record(record) if isinstance(record, dict) else None
    if summary is None:
        return []
    sections = [
        Section(
            "Beside simple filters",
            summary_grids(summary, pairs=details.get("pairs")),
            "Measured on patches that training never saw. A network must beat the raw micrograph and a "
            "Gaussian blur to be worth using.",
        )
    ]
    assert isinstance(record, dict)
    curves = record.get("curves")
    charts = (
        [*_frc(curves, pixel_size_angstrom), *_response(curves, pixel_size_angstrom)]
        if isinstance(curves, dict)
        else []
    )
    if charts:
        sections.append(Section("By resolution", charts))
    return sections


def _frc(curves: Mapping[str, Any], pixel_size_angstrom: float | None) -> list[Chart]:
    found = {name: _numbers(curve) for name, curve in curves.items() if name in (*STYLES, "frequency")}
    frequency = found.pop("frequency", np.empty(0))
    series = [(name, curve) for name, curve in found.items() if len(curve) == len(frequency) and len(frequency)]
    if not series:
        return []
    places, x = frequency_axis(frequency, pixel_size_angstrom)
    # Beyond the first ring where a curve is lost in the noise of its estimate, all of them are.
    lost = np.any([~((curve > _LEAST) & (curve < _MOST)) for _, curve in series], axis=0)
    end = int(np.argmax(lost)) if lost.any() else len(frequency)
    places, series = places[:end], [(name, curve[:end]) for name, curve in series]
    drawn = [Series(name, places, curve, STYLES[name]) for name, curve in series]
    return [
        Chart(
            "Correlation with the truth",
            line_chart(
                drawn, x, Axis("correlation", limits=(-0.05, 1.05)), title="correlation with the truth by resolution"
            ),
            "Measured by the truth, or estimated from the other half. The higher curve is nearer to the truth at that "
            "detail. Curves end where noise hides one of them.",
        )
    ]


def _response(curves: Mapping[str, Any], pixel_size_angstrom: float | None) -> list[Chart]:
    record = curves.get(RESPONSE_FIELD)
    if not isinstance(record, dict):
        return []
    frequency, gain = _numbers(record.get("frequency")), _numbers(record.get("gain"))
    if not len(frequency) or len(frequency) != len(gain):
        return []
    places, x = frequency_axis(frequency, pixel_size_angstrom)
    return [
        Chart(
            "Effective frequency response",
            line_chart(
                [Series(DENOISED, places, gain, STYLES[DENOISED])],
                x,
                Axis("gain", limits=(0.0, 1.1)),
                title="effective frequency response",
            ),
            "Which part of each frequency the network lets through: 1 is all, 0 is nothing. It falls where noise is stronger "
            "than signal. Compare it with the resolution that you need for picking.",
        )
    ]


def _examples(examples: Sequence[Example], pairs: Any, pixel_size_angstrom: float | None) -> Section:
    other = (
        "the other half" if pairs == "halves" else "the exposure with other noise" if pairs == "single" else "target"
    )
    blocks = [
        panels(
            {
                "input": item.noisy,
                "denoised": item.denoised,
                other: item.target,
                "removed (input - denoised)": item.noisy - item.denoised,
            },
            clean=["denoised"],
            noisy=["input"],
            pixel_size_angstrom=pixel_size_angstrom,
        )
        for item in examples
    ]
    lead = (
        "Held-out patches, which training never saw. The network gets the first panel and should come near to what both "
        "noisy panels have in common. What was removed should be noise alone: particles there were taken away. "
        "All panels have one grey scale."
    )
    return Section("Pairs, and what the network makes of them", blocks, lead)


def _numbers(values: Any) -> np.ndarray:
    if not isinstance(values, Sequence) or isinstance(values, str):
        return np.empty(0)
    return np.array([_number(value) for value in values])


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")
