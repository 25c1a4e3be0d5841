"""The output folder of a command: there already or not, but never a file."""

from __future__ import annotations

from pathlib import Path

from cryoplug.errors import UsageError


def refuse_file(output: Path) -> None:
    """Raise `UsageError` where the output folder is a file."""
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output}: this is a file; -o names the folder to write into")
