"""Inspect the general model that comes with the package: its weights, and the facts on its card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cryoplug.core.results import Finding
from cryoplug.models import shipped
from cryoplug.workflows.inspect.inspection import Inspection
from cryoplug.workflows.inspect.runs import inspect_checkpoint


def inspect_general(path: Path) -> Inspection:
    """Inspect the general model; a build without it is an error.

    Parameters
    ----------
    path
        Its name, as the user wrote it.
    """
    notes = [Finding("note", "path", shipped.namesake_note())] if shipped.namesake_note() else []
    if not shipped.is_there():
        missing = Finding("error", "path", "this build of cryoplug comes without it; install a release")
        return Inspection(path, "missing", {}, (missing, *notes))
    found = inspect_checkpoint(shipped.FOLDER)
    facts = shipped.card_facts()
    if not facts:
        notes.append(Finding("warning", shipped.CARD_NAME, "missing, or without a table of facts; install it again"))
    summary = {"card": facts, **found.summary, "folder": str(shipped.FOLDER)}
    return replace(found, path=path, summary=summary, findings=(*found.findings, *notes))
