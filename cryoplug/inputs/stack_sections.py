"""Stacks among the inputs: every section becomes an input of its own; a movie stays one input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from cryoplug.errors import FormatError, InputError, StorageError
from cryoplug.formats.registry import MRC, PACKED_MRC
from cryoplug.formats.stack_kind import VOLUME_ADVICE, StackLook, look_at_stack
from cryoplug.inputs.discovered import DiscoveredMicrograph, known_endings, with_section
from cryoplug.inputs.pairing import PairedInput

_STACKS = ("stack", "tilt series", "volume")
"""Kinds of files that hold several separate images, not the frames of one image."""


class StackLooks:
    """Finds out what the files of a run hold, and opens as few of them as possible.

    If one file holds a single image, all files of the same folder, ending and size are taken to do so, too. So a set of
    10,000 micrographs is not opened twice.
    """

    def __init__(self) -> None:
        self._single: set[tuple[str, str, int]] = set()
        self._known: dict[Path, StackLook | None] = {}

    def of(self, path: Path) -> StackLook | None:
        """Look at a file; None for a single image, and for a file that cannot be opened (reported when its turn comes)."""
        if path not in self._known:
            self._known[path] = self._look(path)
        return self._known[path]

    def _look(self, path: Path) -> StackLook | None:
        if not path.name.lower().endswith(MRC.extensions + PACKED_MRC.extensions):
            return None
        try:
            alike = str(path.parent), path.suffix, path.stat().st_size
            if alike in self._single:
                return None
            found = look_at_stack(path)
        except (InputError, StorageError, OSError, ValueError):
            return None
        if found.kind != "image":
            return found
        self._single.add(alike)
        return None


def with_sections(pairs: Sequence[PairedInput], looks: StackLooks) -> tuple[PairedInput, ...]:
    """Replace every pair of stacks by the pairs of their sections.

    Two stacks are no pair if one is a volume, or if they have different numbers of sections. They stay as they are, and the
    reason becomes their `problem`.
    """
    found: list[PairedInput] = []
    endings = known_endings()
    for pair in pairs:
        count, problem = (0, pair.problem) if pair.problem else common_sections(pair.files, looks)
        if not count:
            found.append(replace(pair, index=len(found), problem=problem))
        for section in range(1, count + 1):
            sides = [one_section(item, section, endings) for item in pair.files]
            found.append(replace(pair, index=len(found), noisy=sides[0], clean=sides[1] if len(sides) > 1 else None))
    return tuple(found)


def common_sections(files: Sequence[DiscoveredMicrograph], looks: StackLooks) -> tuple[int, FormatError | None]:
    """Give the number of sections of files that belong together, or the error if it differs; 0 if none of them is a stack.

    Parameters
    ----------
    files
        One or more; a single image counts as one section beside a stack.
    looks
        Knows what the files hold.
    """
    looked = [looks.of(item.path) for item in files if item.section is None]
    if len(looked) < len(files) or not any(item is not None and item.kind in _STACKS for item in looked):
        return 0, None
    for look in looked:
        if look is not None and look.kind == "volume":
            return 0, FormatError(f"{look.path}: this is a volume because {look.why}; {VOLUME_ADVICE}")
    counts = [1 if look is None else look.sections for look in looked]
    for item, count in zip(files, counts, strict=True):
        if count != counts[0]:
            first = files[0].path
            return 0, FormatError(
                f"{first}: {counts[0]} sections but {item.path} has {count}; a pair needs as many in each"
            )
    return counts[0], None


def one_section(item: DiscoveredMicrograph, section: int, endings: frozenset[str]) -> DiscoveredMicrograph:
    """Give one section of a listed stack, counted from 1, as an entry of its own."""
    relative = PurePosixPath(with_section(str(item.relative), section, endings))
    return replace(item, section=section, relative=relative, even=None, odd=None)
