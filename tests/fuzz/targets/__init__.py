"""What is fuzzed: one small file a kind of file, and the list of them all."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NAMES = ("mrc", "compressed", "tiff", "ser", "star", "cs", "manifest", "checkpoint", "checkpoint_json", "hdf5")


@dataclass(frozen=True)
class Target:
    """A reader of files, and valid files to damage."""

    seeds: Callable[[], tuple[bytes, ...]]
    """Makes small valid files of the kind."""
    run: Callable[[Path, bytes], None]
    """Writes an input below an empty folder and reads it as the commands do."""
    words: tuple[bytes, ...] = ()
    """Words of the format, for damage that keeps the form of a text."""


def load(name: str) -> Target:
    """Give the target of a name of `NAMES`."""
    return importlib.import_module(f"fuzz.targets.{name}").TARGET
