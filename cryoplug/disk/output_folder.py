"""The output folder of a command: it may exist or not, but it must not be a file."""

from __future__ import annotations

from pathlib import Path

from cryoplug.errors import UsageError


def refuse_file(output: Path) -> None:
    """Raise `UsageError` if the output folder is a file."""
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output}: this is a file; -o names the folder to write into")
