"""What a caller may write for files, a checkpoint and an amount of memory, and what is meant by it."""

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
    """Give the names as the command line would have them; `argument` is what the caller knows them by.

    Raises
    ------
    UsageError
        Something else was given.
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
    """Give them as paths; see `names_of`."""
    return tuple(map(Path, names_of(asked, argument)))


def path_of(asked: AnyPath, argument: str) -> Path:
    """Give the one path that is meant; see `names_of`."""
    if not isinstance(asked, (str, os.PathLike)):
        raise UsageError(f"{argument}: {type(asked).__name__} (allowed: one path, as text or pathlib.Path)")
    return Path(asked)


def checkpoint_of(asked: AnyPath) -> Path:
    """Give the checkpoint that is meant: ``general`` is the model of the package, everything else a path."""
    return named_checkpoint(asked if isinstance(asked, str) else path_of(asked, "checkpoint"))


def bytes_of(asked: int | str | None) -> int | None:
    """Give the bytes that are meant by an amount of memory such as ``"2GB"``; a number is bytes already."""
    return parse_size(asked) if isinstance(asked, str) else asked
