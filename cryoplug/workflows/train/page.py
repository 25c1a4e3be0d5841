"""The page of a training run, written into its folder when the run has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryoplug.models.checkpoint import Checkpoint
from cryoplug.reports.evaluation_record import recorded_verdict
from cryoplug.reports.html import write_page
from cryoplug.reports.training_page import Example, training_page
from cryoplug.reports.words import verdict_words

PAGE_NAME = "report.html"
"""In the run folder."""


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
        Of the run.
    records
        One an epoch, as in ``metrics.jsonl``.
    checkpoint
        The one that is kept.
    best_epoch
        Its epoch.
    examples
        Held-out pairs; none where the store is not at hand any more.
    path
        Where to write; None: ``report.html`` in the folder.

    Raises
    ------
    StorageError
        The system refuses.
    """
    path = path or folder / PAGE_NAME
    write_page(path, training_page(folder, records, examples=examples, **page_parts(checkpoint), best_epoch=best_epoch))
    return path


def page_parts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Give what the page says about a checkpoint."""
    details = checkpoint.details
    pairs = details.get("pairs")
    pairs = pairs if isinstance(pairs, str) else None
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
        about += [(str(name).replace("_", " "), str(value)) for name, value in training.items() if _is_plain(value)]
    return {
        "details": details,
        "words": verdict_words(recorded_verdict(details), pairs=pairs),
        "about": about,
        "pixel_size_angstrom": checkpoint.pixel_size_angstrom,
    }


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and value != ""
