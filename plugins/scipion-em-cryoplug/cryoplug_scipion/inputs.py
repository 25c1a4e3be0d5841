"""Read micrographs and their halves from sets of Scipion that may still grow."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any, Callable

from pwem.objects import SetOfMicrographs

from cryoplug_scipion.listing import Exposure
from cryoplug_scipion.program import CryoplugError

_SIDE = re.compile(r"[_\-. ]?(evn|even|odd)(?=[_\-. ]|$)", re.IGNORECASE)
"""Part of a name that marks the even or odd half."""
_ENDING = re.compile(r"\.(mrcs?|tiff?|eer|dm[34]|map)$", re.IGNORECASE)
_LOOKS_AT_A_LOCKED_SET = 20


class GrowingSet:
    """A set of micrographs of another protocol, read again when its file has changed."""

    def __init__(self, micrographs: Any) -> None:
        self._file = micrographs.getFileName()
        self._seen: tuple[int, int] | None = None
        self._locked = 0
        self.items: dict[int, Any] = {}
        """Micrographs by their number in the set."""
        self.is_closed = False
        """Whether the set is complete."""

    def look(self) -> None:
        """Read the set if it has changed; if another process is writing it now, the next look reads it."""
        state = Path(self._file).stat()
        seen = (state.st_mtime_ns, state.st_size)
        if seen == self._seen:
            return
        try:
            found = SetOfMicrographs(filename=self._file)
            found.loadAllProperties()
            items = {item.getObjId(): item.clone(copyEnable=True) for item in found}
            is_closed = found.isStreamClosed()
            found.close()
        except sqlite3.OperationalError:
            self._locked += 1
            if self._locked > _LOOKS_AT_A_LOCKED_SET:
                raise
            return
        self._locked = 0
        self._seen, self.items, self.is_closed = seen, items, is_closed


def place(micrograph: Any) -> tuple[int, str]:
    """Give the index in a stack (from 1; 0 for a file with one image) and the file."""
    return micrograph.getIndex() or 0, micrograph.getFileName()


def exposures(of: GrowingSet, even: GrowingSet | None = None, odd: GrowingSet | None = None) -> list[Exposure]:
    """Give the rows of a list; with halves, only the exposures whose two halves are there."""
    if even is None or odd is None:
        return [Exposure(number, place(item)) for number, item in of.items.items()]
    return [
        Exposure(number, place(of.items[number]), place(one), place(two))
        for number, (one, two) in partners(of, even, odd).items()
    ]


def partners(of: GrowingSet, *others: GrowingSet) -> dict[int, tuple[Any, ...]]:
    """Find micrographs of one exposure in several sets, by the name of the micrograph.

    Motion correction in Scipion uses the same name in all its sets; the numbers in the sets mean nothing. If no names are
    equal, names match that differ only in EVN and ODD, in even and odd, or in the ending of the file.

    Returns
    -------
    dict[int, tuple]
        Micrographs of the other sets, by the number of the one in the first set; exposures that some set lacks are left out.
    """
    exact = [set(map(_name, other.items.values())) for other in others]
    name = _name if set.intersection(*exact) & set(map(_name, of.items.values())) else _name_without_side
    tables = [_by_name(other, name) for other in others]
    found = {number: tuple(table.get(name(item)) for table in tables) for number, item in of.items.items()}
    return {number: items for number, items in found.items() if None not in items}


def _by_name(of: GrowingSet, name: Callable[[Any], str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in of.items.values():
        other = found.setdefault(name(item), item)
        if other is not item:
            raise CryoplugError(
                f"two micrographs of one set are both called {name(item)}: {other.getFileName()} and {item.getFileName()}; "
                "leave one of them out"
            )
    return found


def _name(micrograph: Any) -> str:
    return micrograph.getMicName() or Path(micrograph.getFileName()).name


def _name_without_side(micrograph: Any) -> str:
    return _SIDE.sub("", _ENDING.sub("", _name(micrograph))).lower()
