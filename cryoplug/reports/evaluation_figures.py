"""Pictures of an evaluation: curves over spatial frequency, and panels of one micrograph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cryoplug.errors import ShapeError
from cryoplug.metrics.evaluation import DENOISED, HalvesReport, TruthReport
from cryoplug.metrics.truth import THRESHOLDS
from cryoplug.reports.evaluation_curves import halves_curves, truth_curves
from cryoplug.reports.figures import _MAX_PANEL_PX, _averaged_down, _save, new_figure

_COLOURS = {
    DENOISED: "#cc3311",
    "identity": "#bbbbbb",
    "affine": "#999933",
    "gaussian": "#4477aa",
    "wiener": "#228833",
}


def evaluation_curves(path: Path, truth: Sequence[TruthReport], halves: Sequence[HalvesReport]) -> None:
    """Draw FRC, signal-to-noise and error of every method over frequency.

    Parameters
    ----------
    path
        PNG to write; replaced atomically.
    truth, halves
        Reports of the micrographs; curves are averaged over those with the shape of the first one.

    Raises
    ------
    ShapeError
        There is no report.
    UsageError
        matplotlib is not installed.
    """
    if not truth and not halves:
        raise ShapeError("no reports; at least one of truth and halves is needed for curves")
    figure = new_figure(6.4 * (bool(truth) + 2 * bool(halves)), 4.4)
    panels = list(figure.subplots(1, bool(truth) + 2 * bool(halves), squeeze=False)[0])
    if truth:
        _draw_truth(panels.pop(0), truth)
    if halves:
        _draw_halves(panels, halves)
    figure.tight_layout()
    _save(figure, path)


def evaluation_panels(path: Path, images: Mapping[str, npt.NDArray[np.floating]], title: str) -> None:
    """Draw images side by side, each in its own grey scale, and below each its central quarter.

    Grey limits are the 0.5 and 99.5 percentiles of each image; otherwise denoised noise would be plain grey.
    """
    if not images:
        raise ShapeError("no images to draw; at least one is needed")
    figure = new_figure(4.2 * len(images), 9.2)
    rows = figure.subplots(2, len(images), squeeze=False)
    for column, (caption, image) in enumerate(images.items()):
        y, x = image.shape[0] * 3 // 8, image.shape[1] * 3 // 8
        detail = image[y : y + max(image.shape[0] // 4, 1), x : x + max(image.shape[1] // 4, 1)]
        low, high = np.percentile(image, [0.5, 99.5])
        for row, pixels in enumerate((_averaged_down(image), detail[:_MAX_PANEL_PX, :_MAX_PANEL_PX])):
            axes = rows[row][column]
            axes.imshow(pixels, cmap="gray", vmin=low, vmax=high if high > low else low + 1, interpolation="nearest")
            axes.set_axis_off()
        rows[0][column].set_title(f"{caption}\n{low:.4g} to {high:.4g}", fontsize=10)
    figure.suptitle(title, fontsize=12)
    figure.tight_layout()
    _save(figure, path)


def _draw_truth(axes: Any, reports: Sequence[TruthReport]) -> None:
    frequency, curves = truth_curves(reports)
    for method, curve in curves.items():
        axes.plot(frequency, curve, label=method, color=_COLOURS.get(method))
    _thresholds(axes)
    _dress(axes, "FRC with the truth")


def _draw_halves(panels: Sequence[Any], reports: Sequence[HalvesReport]) -> None:
    curves = halves_curves(reports)
    for method in curves.known:
        colour = _COLOURS.get(method)
        panels[0].plot(curves.frequency, curves.known[method], label=method, color=colour)
        panels[1].plot(curves.frequency, curves.error[method], label=method, color=colour)
    panels[1].plot(curves.frequency, curves.signal, label="signal", color="black", linestyle=":")
    panels[0].set_xlim(panels[1].get_xlim())
    panels[0].set_ylim(-0.1, 1.1)
    _thresholds(panels[0])
    _dress(panels[0], "FRC(De, Ro) / sqrt(FRC(Re, Ro)): correlation with the unknown truth")
    panels[1].set_yscale("log")
    _dress(panels[1], "error B + N in each ring")


def _thresholds(axes: Any) -> None:
    for threshold in THRESHOLDS:
        axes.axhline(threshold, color="black", linewidth=0.6, linestyle="--")


def _dress(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("cycles per pixel")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
