"""How the halves of an exposure are called, and finding them beside a micrograph.

RELION 5 and MotionCor write ``X_EVN.mrc`` and ``X_ODD.mrc`` beside ``X.mrc``; others ``X_even`` and ``X_odd``. Lower and
upper case make no difference.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cryoplug.workflows.discovered import split_ending

_HALF = re.compile(r"(.+)_(evn|even|odd)", re.IGNORECASE | re.DOTALL)


def half_of(name: str, endings: frozenset[str]) -> tuple[str, str, str] | None:
    """Split the name of a half into the stem of its exposure, the side and the ending; None for any other name.

    Returns
    -------
    tuple[str, str, str] or None
        ``("X", "even", ".mrc")`` for ``X_EVN.mrc``.
    """
    stem, ending = split_ending(name, endings)
    match = _HALF.fullmatch(stem)
    return (match[1], "odd" if match[2].lower() == "odd" else "even", ending) if match else None


def expected_names(name: str, endings: frozenset[str]) -> tuple[str, str]:
    """Give the usual names of the two halves of a micrograph, or of the exposure that a half belongs to."""
    half = half_of(name, endings)
    stem, ending = (half[0], half[2]) if half else split_ending(name, endings)
    return f"{stem}_EVN{ending}", f"{stem}_ODD{ending}"


class SiblingHalves:
    """Finds halves beside micrographs; every folder is listed once, however many micrographs it holds."""

    def __init__(self, endings: frozenset[str]) -> None:
        self._endings = endings
        self._folders: dict[str, dict[tuple[str, str], dict[str, Path]]] = {}

    def of(self, path: Path) -> tuple[Path | None, Path | None]:
        """Give the even and the odd half that lie beside `path`, each None when it is not there.

        A file that is a half itself is one of the two.
        """
        folder, name = os.path.split(path)
        halves = self._folders.get(folder)
        if halves is None:
            halves = self._folders[folder] = self._listed(folder)
        if not halves:
            return None, None
        own = half_of(name, self._endings)
        stem, ending = (own[0], own[2]) if own else split_ending(name, self._endings)
        pair = halves.get((stem, ending.lower()), {})
        if own is None:
            return pair.get("even"), pair.get("odd")
        return (path, pair.get("odd")) if own[1] == "even" else (pair.get("even"), path)

    def _listed(self, folder: str) -> dict[tuple[str, str], dict[str, Path]]:
        halves: dict[tuple[str, str], dict[str, Path]] = {}
        try:
            names = sorted(os.listdir(folder or "."))
        except OSError:
            return {}  # What is missing there is reported when it is opened.
        for name in names:
            found = half_of(name, self._endings)
            if found is not None:
                sides = halves.setdefault((found[0], found[2].lower()), {})
                if found[1] not in sides:
                    sides[found[1]] = Path(folder, name)
        return halves
