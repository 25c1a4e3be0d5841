"""The record ``checkpoint.json``, beside sound weights; what it says is shown by ``inspect`` too."""

from __future__ import annotations

from pathlib import Path

from cryoplug.core.results import to_json
from cryoplug.workflows.inspect import inspect_path
from fuzz.targets import Target, checkpoint, manifest


def _run(folder: Path, payload: bytes) -> None:
    try:
        checkpoint.run(folder, payload, "checkpoint.json")
    finally:
        to_json(inspect_path(folder))


TARGET = Target(seeds=lambda: (checkpoint.saved()["checkpoint.json"],), run=_run, words=manifest.TARGET.words)
