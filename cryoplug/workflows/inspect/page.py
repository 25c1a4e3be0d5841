"""The page of an inspection: one row per path, with pictures of stores and curves of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryoplug.core.printable import printable_name
from cryoplug.errors import InputError, StorageError
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.models.epoch_folders import best_epoch, epoch_number
from cryoplug.reports.evaluation_record import recorded_pairs, recorded_verdict
from cryoplug.reports.html import write_page
from cryoplug.reports.inspect_page import InspectedRow, inspect_page
from cryoplug.reports.sections import Section
from cryoplug.reports.store_look import look_into_store
from cryoplug.reports.store_page import store_sections
from cryoplug.reports.training_page import evaluation_sections, training_section
from cryoplug.reports.words import verdict_words
from cryoplug.store.pairs import open_store
from cryoplug.workflows.inspect.inspection import Inspection
from cryoplug.workflows.inspect.runs import run_metrics

MOST_PICTURED = 12
"""Most stores and runs that get pictures; the others only have their rows."""


class InspectPage:
    """Collects inspections, and writes the page.

    Parameters
    ----------
    path
        Path of the page.
    patch_size
        Side in pixels of the patches in bare bins.
    """

    def __init__(self, path: Path, patch_size: int) -> None:
        self.path = path
        self._patch_size = patch_size
        self._rows: list[InspectedRow] = []
        self._sections: list[Section] = []
        self._pictured = 0

    def take(self, item: Inspection) -> None:
        """Keep the inspection of a path, and read pictures and curves of stores and runs."""
        summary = item.summary
        shape = summary.get("shape")
        self._rows.append(
            InspectedRow(
                str(item.path),
                item.kind,
                item.findings,
                (int(shape[0]), int(shape[1])) if isinstance(shape, (list, tuple)) and len(shape) == 2 else None,
                _number(summary.get("pixel_size_angstrom")),
                _number(summary.get("mean")),
                _number(summary.get("std")),
            )
        )
        if self._pictured >= MOST_PICTURED or item.kind not in ("store", "run", "checkpoint"):
            return
        try:
            sections = self._store(item.path) if item.kind == "store" else _run(item.path)
        except (InputError, StorageError):
            return  # its row says what is wrong with it
        self._pictured += bool(sections)
        self._sections += sections

    def write(self) -> None:
        """Write the page.

        Raises
        ------
        StorageError
            The system refuses.
        """
        write_page(self.path, inspect_page(self._rows, self._sections))

    def _store(self, path: Path) -> list[Section]:
        with open_store(path, patch_size=self._patch_size) as store:
            return store_sections(look_into_store(store), title=printable_name(path))


def _run(path: Path) -> list[Section]:
    """Give the verdict, the losses and the evaluation of a run folder, or verdict and evaluation of a checkpoint."""
    folder = path if path.is_dir() else path.parent
    best = best_epoch(folder) or folder
    checkpoint = load_checkpoint(best)
    records: list[dict[str, Any]] = run_metrics(folder)
    details = checkpoint.details
    verdict = recorded_verdict(details)
    sections = []
    if verdict is not None:
        words = verdict_words(verdict, pairs=recorded_pairs(details))
        sections.append(Section("How good it is", [], " ".join(words)))
    if len(records) > 1:  # the curves of one epoch would be points
        sections.append(training_section(records, epoch_number(best) if best != folder else None))
    sections += evaluation_sections(details, checkpoint.pixel_size_angstrom)
    return [Section(f"{printable_name(folder)}: {item.title}", item.blocks, item.lead) for item in sections]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
