"""The page of a training run, written into its folder when the run has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryoplug.models.checkpoint import Checkpoint
from cryoplug.reports.evaluation_record import recorded_pairs, recorded_verdict
from cryoplug.reports.html import write_page
from cryoplug.reports.training_page import Example, training_page
from cryoplug.reports.words import verdict_words

PAGE_NAME = "report.html"
"""Name of the page in the run folder."""


def write_training_page(
    folder: Path,
    records: Sequence[Mapping[str, Any]],
    checkpoint: Checkpoint,
    best_epoch: int,
    examples: Sequence[Example] = (),
    path: Path | None = None,
) -> Path:
    """Write the page.

    Parameters
    ----------
    folder
        Folder of the run.
    records
        One record for each epoch, as in ``metrics.jsonl``.
    checkpoint
        The kept checkpoint.
    best_epoch
        Its epoch.
    examples
        Held-out pairs; none if the store is not available any more.
    path
        Path of the page; None writes ``report.html`` in the folder.

    Raises
    ------
    StorageError
        The system refuses.
    """
    path = path or folder / PAGE_NAME
    write_page(path, training_page(folder, records, examples=examples, **page_parts(checkpoint), best_epoch=best_epoch))
    return path


def page_parts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Give the facts on a checkpoint for the page."""
    details = checkpoint.details
    pairs = recorded_pairs(details)
    training = details.get("training")
    about = [
        ("network", checkpoint.model_id),
        ("options", ", ".join(f"{name}={value}" for name, value in checkpoint.config.items()) or "none"),
        ("checkpoint (SHA-256)", checkpoint.sha256),
        ("pairs", pairs or "bare bins"),
        ("normalization", checkpoint.normalize),
        (
            "pixel size (A)",
            "unknown" if checkpoint.pixel_size_angstrom is None else f"{checkpoint.pixel_size_angstrom:g}",
        ),
    ]
    if isinstance(training, dict):
        left_out = {"model", *(["epochs"] if training.get("minutes") is not None else [])}
        about += [
            (_label(name), _value(value))
            for name, value in training.items()
            if _is_plain(value) and name not in left_out
        ]
    return {
        "details": details,
        "words": verdict_words(recorded_verdict(details), pairs=pairs),
        "about": about,
        "pixel_size_angstrom": checkpoint.pixel_size_angstrom,
    }


_LABELS = {
    "lr": "learning rate",
    "ema": "moving average of the weights",
    "init": "started from (SHA-256)",
    "data": "training set (fingerprint)",
    "validation": "held-out pairs (SHA-256)",
    "val_split": "part held out",
    "patch_size": "patch size of bare bins",
}


def _label(name: object) -> str:
    return _LABELS.get(str(name), str(name).replace("_", " "))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and value != ""
