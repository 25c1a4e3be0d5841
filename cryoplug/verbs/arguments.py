"""Read the arguments of a Python caller: files, a checkpoint, an amount of memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from cryoplug.errors import UsageError
from cryoplug.inference.network.memory_plan import parse_size
from cryoplug.models.shipped import named_checkpoint

AnyPath: TypeAlias = str | os.PathLike[str]
"""One file or folder, or a pattern such as ``"Micrographs/*.mrc"``."""
AnyPaths: TypeAlias = AnyPath | Iterable[AnyPath]
"""One, or several."""


def names_of(asked: AnyPaths, argument: str) -> tuple[str, ...]:
    """Give names as the command line would get them; `argument` is the name of the argument, for messages.

    Raises
    ------
    UsageError
        The argument is neither a path nor several paths.
    """
    if isinstance(asked, (str, os.PathLike)):
        return (os.fspath(asked),)
    items: tuple[object, ...] = tuple(asked) if isinstance(asked, Iterable) else (asked,)
    for item in items:
        if not isinstance(item, (str, os.PathLike)):
            raise UsageError(
                f"{argument}: {type(item).__name__} (allowed: a path as text or pathlib.Path, or several in a list)"
            )
    return tuple(os.fspath(item) for item in items if isinstance(item, (str, os.PathLike)))


def paths_of(asked: AnyPaths, argument: str) -> tuple[Path, ...]:
    """Give names as paths; see `names_of`."""
    return tuple(map(Path, names_of(asked, argument)))


def path_of(asked: AnyPath, argument: str) -> Path:
    """Give the argument as a single path; see `names_of`."""
    if not isinstance(asked, (str, os.PathLike)):
        raise UsageError(f"{argument}: {type(asked).__name__} (allowed: one path, as text or pathlib.Path)")
    return Path(asked)


def checkpoint_of(asked: AnyPath) -> Path:
    """Give the checkpoint: ``general`` is the model of the package, everything else a path."""
    return named_checkpoint(asked if isinstance(asked, str) else path_of(asked, "checkpoint"))


def bytes_of(asked: int | str | None) -> int | None:
    """Give an amount of memory such as ``"2GB"`` in bytes; a number already means bytes."""
    return parse_size(asked) if isinstance(asked, str) else asked
