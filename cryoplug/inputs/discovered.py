"""One discovered micrograph, and its name below an output folder."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cryoplug.formats.registry import formats

STACK_ENDINGS = (".mrcs", ".mrc", ".st", ".ali")
"""Endings that a denoised stack keeps. In any other format, every section that a list names becomes a file of its own."""
_RELION_JOB = re.compile(r"job\d{3,}")
_CRYOSPARC_JOB = re.compile(r"J\d+")
_SECTION = re.compile(r"(\d{1,9})@(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class DiscoveredMicrograph:
    """One micrograph to work on; only opening it shows whether it can be read."""

    path: Path
    """The file; if it is missing, only this micrograph fails."""
    relative: PurePosixPath
    """Its name below an output folder: no ``..``, not absolute, different for every micrograph of a list."""
    star_row: int | None = None
    """Row of the table that names it, from 0 (the first such row); None without a STAR file."""
    star_path: Path | None = None
    """The STAR file that names it."""
    pixel_size_angstrom: float | None = None
    """Pixel size that the STAR file or the cryoSPARC dataset gives."""
    section: int | None = None
    """Section of a stack, from 1, as in RELION's ``000012@stack.mrcs``; None for the whole file."""
    even: Path | None = None
    """The half of its exposure from the even frames: named by the STAR file, else a file beside it."""
    odd: Path | None = None
    """The half from the odd frames."""
    list_path: Path | None = None
    """The STAR file, cryoSPARC dataset or text file that names it; None if the user named it, or a search found it."""
    list_row: int | None = None
    """Row of a cryoSPARC dataset that names it, from 0 (the first such row)."""
    series: Path | None = None
    """The STAR file of its tilt series; all views of one series show the same area."""
    stack_relative: PurePosixPath | None = None
    """If a list names a section of a stack: name of the whole stack below an output folder."""
    is_stack: bool = False
    """Whether a list names sections of it, so that all its sections are images; see `whole_stacks`."""
    last_section: int = 0
    """Highest number of a listed section, where `is_stack`: the file must have so many."""

    @property
    def shown(self) -> Path:
        """Its name for people: ``000012@stack.mrcs`` for a section."""
        return self.path if self.section is None else Path(f"{self.section:06d}@{self.path}")

    @property
    def has_halves(self) -> bool:
        """Whether both halves of its exposure were found."""
        return self.even is not None and self.odd is not None


def whole_stacks(micrographs: Sequence[DiscoveredMicrograph]) -> list[DiscoveredMicrograph]:
    """Replace all sections that a list names by their whole stack; a section that the user named stays alone.

    So sections keep their numbers in the result: ``000012@stack.mrcs`` becomes ``000012@out/stack.mrcs``.
    """
    found: dict[object, DiscoveredMicrograph] = {}
    last: dict[Path, int] = {}
    for number, item in enumerate(micrographs):
        if item.section is None or item.list_path is None or not item.path.name.lower().endswith(STACK_ENDINGS):
            found[number] = item
        elif item.path not in found:
            found[item.path] = replace(item, section=None, relative=item.stack_relative or item.relative, is_stack=True)
            last[item.path] = item.section
        else:
            last[item.path] = max(last[item.path], item.section)
    return [replace(item, last_section=last[item.path]) if item.is_stack else item for item in found.values()]


def known_endings() -> frozenset[str]:
    """Give the endings of all formats with the dot, in lower case; some have two parts (``.mrc.gz``)."""
    return frozenset(suffix for spec in formats().values() for suffix in spec.extensions)


def searched_endings() -> tuple[str, ...]:
    """Give the endings of files that a search in a folder finds."""
    return tuple({ending for spec in formats().values() for ending in spec.searched or spec.extensions})


def split_ending(name: str, endings: frozenset[str]) -> tuple[str, str]:
    """Split a file name into stem and ending, the longest known one; the ending is empty when none is known."""
    lowered = name.lower()
    last = lowered.rfind(".")
    before = lowered.rfind(".", 0, max(last, 0))
    for start in (before, last):
        # A name that is nothing but an ending is a hidden file.
        if start > 0 and lowered[start:] in endings:
            return name[:start], name[start:]
    return name, ""


def split_section(name: str) -> tuple[int | None, str]:
    """Split ``000012@stack.mrcs`` into 12 and the path; a name without a section gives None and itself."""
    match = _SECTION.fullmatch(name)
    return (int(match[1]), match[2]) if match else (None, name)


def with_section(name: str, section: int | None, endings: frozenset[str]) -> str:
    """Name a section as a file of its own: ``stack.mrcs`` and 12 give ``stack_000012.mrcs``."""
    if section is None:
        return name
    folder, slash, last = name.rpartition("/")
    stem, ending = split_ending(last, endings)
    return f"{folder}{slash}{stem}_{section:06d}{ending}"


def name_below_job(name: str) -> str:
    """Give the output name of a micrograph that a STAR file or a dataset names: relative, without ``..``.

    RELION pairs coordinates with micrographs by the path after ``X/jobNNN/``, so this part is kept. In cryoSPARC the part
    to drop is ``JNNN/`` at the beginning.
    """
    parts = safe_parts(name)
    below = _below_job(parts[:-1])
    if below is not None:
        return "/".join([*below, parts[-1]])
    # Of a path from the root only the name is kept: the rest is this machine's, not the project's.
    if name.startswith("/"):
        return parts[-1]
    return "/".join(parts[1:] if len(parts) > 1 and _CRYOSPARC_JOB.fullmatch(parts[0]) else parts)


def below_job(folder: str) -> str:
    """Give the part of a folder's path after ``X/jobNNN/``; the whole path if it has no job."""
    below = _below_job(folder.split("/"))
    return folder if below is None else "/".join(below)


def _below_job(folders: Sequence[str]) -> Sequence[str] | None:
    jobs = [index for index, part in enumerate(folders) if index > 0 and _RELION_JOB.fullmatch(part)]
    return folders[jobs[-1] + 1 :] if jobs else None


def safe_parts(name: str) -> list[str]:
    """Split a path into its parts without root, ``.`` and ``..``; at least one."""
    parts = [part for part in os.path.normpath(name).split("/") if part not in ("", "..", ".")]
    return parts or ["micrograph"]


def with_unique_names(items: Sequence[tuple[str, DiscoveredMicrograph]]) -> list[DiscoveredMicrograph]:
    """Put parent folders before output names that collide, until all differ.

    Parameters
    ----------
    items
        Each item with its absolute path; for a section, the path contains its number.
    """
    # Text and not paths while comparing: hashing 100,000 paths takes seconds.
    names = [str(item.relative) for _, item in items]
    # Each round lengthens every colliding name by one folder; whole paths differ, so this ends.
    while True:
        groups: dict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(names):
            groups[name].append(index)
        colliding = [index for group in groups.values() if len(group) > 1 for index in group]
        longer = {index: _longer(names[index], items[index][0]) for index in colliding}
        if all(longer[index] == names[index] for index in colliding):
            break
        for index, name in longer.items():
            names[index] = name
    return [
        item if str(item.relative) == name else replace(item, relative=PurePosixPath(name))
        for (_, item), name in zip(items, names, strict=True)
    ]


def _longer(name: str, absolute: str) -> str:
    parts = safe_parts(absolute)
    depth = name.count("/") + 1
    return "/".join(parts[-(depth + 1) :]) if depth < len(parts) else name
