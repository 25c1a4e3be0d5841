"""Disk budget and rotation: what old nights may lose, pictures first. All of it can be made again from the raw micrographs.

Only what the journal of an output folder (``denoise.jsonl``) names as written is ever removed, and the pictures in
``previews/``. The journal, the STAR file, the page and the tally stay.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

JOURNAL = "denoise.jsonl"
UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def bytes_of(text: str) -> int:
    """Read an amount such as ``500GB``.

    Raises
    ------
    ValueError
        It is none.
    """
    for unit, size in UNITS.items():
        if text.endswith(unit):
            return round(float(text.removesuffix(unit)) * size)
    raise ValueError(f"{text!r} (allowed: an amount such as 500GB or 2TB)")


def nights(pattern: Path) -> list[tuple[datetime.date, Path]]:
    """Find the folders of all nights, oldest first, that hold results of cryoplug.

    Parameters
    ----------
    pattern
        Of the output folders; its last part is a date such as ``%Y-%m-%d``.
    """
    found = []
    for folder in pattern.parent.iterdir() if pattern.parent.is_dir() else ():
        with contextlib.suppress(ValueError):
            night = datetime.datetime.strptime(folder.name, pattern.name).date()
            if (folder / JOURNAL).is_file():
                found.append((night, folder))
    return sorted(found)


def used_bytes(folder: Path) -> int:
    """Add up the sizes of all files below a folder; those that vanish meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size
    return total


def remove_previews(night: Path) -> int:
    """Remove the pictures of a night; give how many bytes that frees."""
    return _remove(night, (night / "previews").rglob("*.jpg"))


def remove_micrographs(night: Path) -> int:
    """Remove the denoised micrographs of a night; give how many bytes that frees."""
    return _remove(night, _written(night))


def rotate(pattern: Path, today: datetime.date, *, previews: int | None, micrographs: int | None) -> Iterator[str]:
    """Remove what is older than it is kept; say what was removed.

    Parameters
    ----------
    pattern
        See `nights`.
    today
        The night that is worked on.
    previews, micrographs
        How many nights each is kept; None: for ever.
    """
    for night, folder in nights(pattern):
        age = (today - night).days
        for kept, remove, what in (
            (previews, remove_previews, "pictures"),
            (micrographs, remove_micrographs, "denoised micrographs"),
        ):
            if kept is not None and age >= kept and (freed := remove(folder)):
                yield f"{folder.name}: {what} removed, {freed / 1e9:.2f} GB; they were kept for {kept} nights"


def make_room(pattern: Path, budget_bytes: int, *, never: Sequence[Path]) -> Iterator[str]:
    """Remove results of the oldest nights, until all nights together are within the budget; say what was removed.

    Parameters
    ----------
    pattern
        See `nights`.
    budget_bytes
        What all output folders may take together.
    never
        Folders that lose nothing.
    """
    old = [folder for _, folder in nights(pattern) if folder not in never]
    over = sum(used_bytes(folder) for _, folder in nights(pattern)) - budget_bytes
    for remove, what in ((remove_previews, "pictures"), (remove_micrographs, "denoised micrographs")):
        for folder in old:
            if over <= 0:
                return
            if freed := remove(folder):
                over -= freed
                yield f"{folder.name}: {what} removed, {freed / 1e9:.2f} GB; the disk budget is used up"


def _written(night: Path) -> Iterator[Path]:
    for line in (night / JOURNAL).read_bytes().splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            record = json.loads(line)
            if record["status"] == "done":
                yield Path(record["output"])


def _remove(night: Path, paths: Iterator[Path]) -> int:
    freed, inside = 0, night.resolve()
    for path in list(paths):
        with contextlib.suppress(OSError):
            if inside in path.resolve().parents and path.is_file():
                size = path.lstat().st_size
                path.unlink()
                freed += size
    return freed
