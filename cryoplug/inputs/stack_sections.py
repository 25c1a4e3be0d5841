"""Stacks among the inputs of a conversion: every section becomes an input of its own, and a movie stays a movie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from cryoplug.errors import FormatError, InputError, StorageError
from cryoplug.formats.registry import MRC
from cryoplug.formats.stack_kind import VOLUME_ADVICE, StackLook, look_at_stack
from cryoplug.inputs.discovered import DiscoveredMicrograph, known_endings, with_section
from cryoplug.inputs.pairing import PairedInput


class StackLooks:
    """What the files of a run hold, each opened as seldom as possible.

    Files of one folder, ending and size as one that was found to hold a single image are taken to do so, too: a set of
    10,000 micrographs is not opened twice for it.
    """

    def __init__(self) -> None:
        self._single: set[tuple[str, str, int]] = set()
        self._known: dict[Path, StackLook | None] = {}

    def of(self, path: Path) -> StackLook | None:
        """Look at a file; None for a single image, and for what cannot be opened (reported when its turn comes)."""
        if path not in self._known:
            self._known[path] = self._look(path)
        return self._known[path]

    def _look(self, path: Path) -> StackLook | None:
        if not path.name.lower().endswith(MRC.extensions):
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

    Raises
    ------
    FormatError
        Two stacks of a pair have different numbers of sections; or one is a volume.
    """
    found: list[PairedInput] = []
    endings = known_endings()
    for pair in pairs:
        looked = [looks.of(item.path) for item in pair.files if item.section is None]
        stacks = [item for item in looked if item is not None and item.kind in ("stack", "tilt series", "volume")]
        if not stacks or len(looked) < len(pair.files):
            found.append(replace(pair, index=len(found)))
            continue
        for item in stacks:
            if item.kind == "volume":
                raise FormatError(f"{item.path}: this is a volume, for {item.why}; {VOLUME_ADVICE}")
        counts = [1 if item is None else item.sections for item in looked]
        if len(set(counts)) > 1:
            one, two = (item.path for item in pair.files)
            raise FormatError(f"{one}: {counts[0]} sections but {two} has {counts[1]}; a pair needs as many in each")
        for section in range(1, counts[0] + 1):
            sides = [_section(item, section, endings) for item in pair.files]
            found.append(replace(pair, index=len(found), noisy=sides[0], clean=sides[1] if len(sides) > 1 else None))
    return tuple(found)


def _section(item: DiscoveredMicrograph, section: int, endings: frozenset[str]) -> DiscoveredMicrograph:
    relative = PurePosixPath(with_section(str(item.relative), section, endings))
    return replace(item, section=section, relative=relative, even=None, odd=None)
