"""The output folder of a command: it may exist or not, but it must not be a file, nor be called like one."""

from __future__ import annotations

from pathlib import Path

from cryoplug.errors import UsageError

ENDINGS_OF_FILES = frozenset(
    {".mrc", ".mrcs", ".tif", ".tiff", ".eer", ".dm3", ".dm4", ".star", ".cs", ".png", ".jpg", ".json", ".html", ".txt"}
)
"""Endings that a new folder hardly has: whoever writes ``-o denoised.mrc`` expects a file of that name."""


def refuse_file(output: Path) -> None:
    """Raise `UsageError` if the output folder is a file, or is still to be made and has a name like a file's."""
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output}: this is a file; -o names the folder to write into")
    if output.suffix.lower() in ENDINGS_OF_FILES and not output.exists():
        raise UsageError(
            f"{output}: this is the name of a file; -o names the folder to write into, such as {output.with_suffix('')}"
        )
