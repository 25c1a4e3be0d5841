"""Figures: the loss of a run, and micrographs before and after.

matplotlib is an optional extra and is imported only when a picture is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cryoplug.disk.atomic import write_bytes
from cryoplug.errors import ShapeError, UsageError

_MAX_PANEL_PX = 1024


def loss_curve(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Draw training and validation loss over the epochs, on a logarithmic axis.

    Parameters
    ----------
    path
        PNG to write; replaced atomically.
    records
        One mapping for each epoch with ``epoch``, ``train_loss`` and ``val_loss``. A loss that is missing, not finite or not
        above 0 leaves a gap.

    Raises
    ------
    UsageError
        matplotlib is not installed.
    """
    figure = new_figure(7.0, 4.2)
    draw_losses(figure.add_subplot(), records)
    _save(figure, path)


def draw_losses(axes: Any, records: Sequence[Mapping[str, Any]]) -> None:
    """Draw the curves of `loss_curve` into axes of matplotlib."""
    epochs = np.array([float(record["epoch"]) for record in records])
    drawn = False
    for key, label, colour in (("train_loss", "training", "#4477aa"), ("val_loss", "validation", "#cc3311")):
        losses = np.array([_positive(record.get(key)) for record in records], dtype=np.float64)
        if np.isfinite(losses).any():
            axes.plot(epochs, losses, marker="o", markersize=3.5, label=label, color=colour)
            drawn = True
    if drawn:
        axes.set_yscale("log")
        axes.legend(frameon=False)
    axes.set_xlabel("epoch")
    name = records[-1].get("loss_name", "mse") if records else "mse"
    axes.set_ylabel("mean squared error" if name == "mse" else f"loss: {name}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)


def before_after(
    path: Path,
    images: Mapping[str, npt.NDArray[np.floating]],
    title: str,
    *,
    limits: tuple[float, float] | None = None,
    zoom_px: int | None = None,
) -> None:
    """Draw images side by side with the same grey limits.

    Parameters
    ----------
    path
        PNG to write; replaced atomically.
    images
        Caption and ``(y, x)`` pixels, left to right; equal shapes. Large images are averaged down for the whole view.
    title
        Line above all.
    limits
        Grey values of black and white for every panel; None takes the 0.5 and 99.5 percentiles of all drawn pixels.
    zoom_px
        Side of the central square for a second row, which shows each pixel as one pixel; None for no second row.

    Raises
    ------
    ShapeError
        There is no image, or shapes differ.
    UsageError
        matplotlib is not installed.
    """
    shapes = {caption: image.shape for caption, image in images.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 2 for shape in shapes.values()):
        raise ShapeError(f"images of shapes {shapes}; at least one is needed, all (y, x) and equal")
    rows = [[_averaged_down(image) for image in images.values()]]
    if zoom_px is not None:
        rows.append([_central(image, zoom_px) for image in images.values()])
    low, high = limits if limits is not None else _shared_limits(pixels for row in rows for pixels in row)
    figure = new_figure(4.2 * len(images), 4.3 * len(rows) + 0.5)
    panels = figure.subplots(len(rows), len(images), squeeze=False)
    for row, pictures in zip(panels, rows, strict=True):
        for axes, pixels in zip(row, pictures, strict=True):
            axes.imshow(pixels, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axes.set_axis_off()
    for axes, caption in zip(panels[0], images, strict=True):
        axes.set_title(caption, fontsize=11)
    figure.suptitle(title, fontsize=12)
    figure.tight_layout()
    _save(figure, path)


def new_figure(width: float, height: float) -> Any:
    """Make a figure without pyplot, so without global state, window, or choice of a backend.

    Parameters
    ----------
    width, height
        In inches.

    Raises
    ------
    UsageError
        matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(f"figures need matplotlib ({error}); install it: pip install 'cryoplug[figures]'") from error
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    buffer = io.BytesIO()
    # Without the software tag the same picture is the same bytes under any matplotlib that draws it alike.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def _positive(value: Any) -> float:
    number = float("nan") if value is None else float(value)
    return number if 0 < number < float("inf") else float("nan")


def _averaged_down(image: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    step = -(-max(image.shape) // _MAX_PANEL_PX)
    height, width = image.shape[0] // step * step, image.shape[1] // step * step
    if step == 1 or not height or not width:
        return image
    return image[:height, :width].reshape(height // step, step, width // step, step).mean(axis=(1, 3))


def _central(image: npt.NDArray[np.floating], side: int) -> npt.NDArray[np.floating]:
    y, x = (max(0, (length - side) // 2) for length in image.shape)
    return image[y : y + side, x : x + side]


def _shared_limits(pictures: Iterable[npt.NDArray[np.floating]]) -> tuple[float, float]:
    pooled = np.concatenate([np.asarray(picture, np.float64).ravel() for picture in pictures])
    low, high = np.nanpercentile(pooled, [0.5, 99.5])
    return float(low), float(high) if high > low else float(low) + 1
