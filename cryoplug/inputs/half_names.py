"""The names of the halves of an exposure, and where they lie: beside a micrograph, or in folders of their own.

RELION 5 and MotionCor write ``X_EVN.mrc`` and ``X_ODD.mrc`` beside ``X.mrc``; others ``X_even`` and ``X_odd``, or ``X_half1`` and
``X_half2``. Lower and upper case make no difference. Warp writes ``average/X``, ``average/even/X`` and ``average/odd/X``, and
cryoplug's own simulation ``noisy/X``, ``even/X`` and ``odd/X``: folders within or beside that of the micrograph.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from cryoplug.inputs.discovered import split_ending
from cryoplug.inputs.exposure_names import exposure_name

_HALF = re.compile(r"(.+)_(evn|even|odd|half1|half2)", re.IGNORECASE | re.DOTALL)
_SIDES = {"even": "even", "evn": "even", "odd": "odd"}
_NAMED_SIDES = {**_SIDES, "half1": "even", "half2": "odd"}
_OLD_WARP = "denoising"
"""Warp 1 writes ``average/X`` and ``denoising/even/X``."""
_FOLDERS = (("even", "odd"), ("Even", "Odd"), ("EVEN", "ODD"), ("evn", "odd"), ("EVN", "ODD"))


def half_of(name: str, endings: frozenset[str]) -> tuple[str, str, str] | None:
    """Split the name of a half into the stem of its exposure, the side and the ending; None for any other name.

    Returns
    -------
    tuple[str, str, str] or None
        ``("X", "even", ".mrc")`` for ``X_EVN.mrc``.
    """
    stem, ending = split_ending(name, endings)
    match = _HALF.fullmatch(stem)
    return (match[1], _NAMED_SIDES[match[2].lower()], ending) if match else None


def side_of(path: Path, endings: frozenset[str]) -> str | None:
    """Say, from its name or folder, whether a file is an ``even`` or an ``odd`` half; None for any other file."""
    named = half_of(path.name, endings)
    return named[1] if named else _SIDES.get(path.parent.name.lower())


def without_side(relative: PurePosixPath, endings: frozenset[str]) -> PurePosixPath:
    """Give the name of the exposure that a half belongs to: ``a/even/X.mrc`` and ``a/X_EVN.mrc`` give ``a/X.mrc``."""
    named = half_of(relative.name, endings)
    if named:
        return relative.with_name(named[0] + named[2])
    return relative.parent.parent / relative.name if relative.parent.name.lower() in _SIDES else relative


def expected_names(name: str, endings: frozenset[str]) -> tuple[str, str]:
    """Give the usual names of the two halves of a micrograph, or of the exposure that a half belongs to."""
    half = half_of(name, endings)
    stem, ending = (half[0], half[2]) if half else split_ending(name, endings)
    return f"{stem}_EVN{ending}", f"{stem}_ODD{ending}"


class SiblingHalves:
    """Finds the halves of micrographs; every folder is listed only once, however many micrographs it holds."""

    def __init__(self, endings: frozenset[str]) -> None:
        self._endings = endings
        self._folders: dict[str, dict[tuple[str, str], dict[str, Path]]] = {}
        self._pairs_of_folders: dict[str, list[tuple[str, str]]] = {}
        self._stems: dict[str, dict[str, Path]] = {}

    def of(self, path: Path) -> tuple[Path | None, Path | None]:
        """Give the even and the odd half of `path`, each None if it is not there.

        This looks beside the file, then in folders ``even`` and ``odd`` within its folder or beside it. A file that is a
        half itself is one of the two.
        """
        folder, name = os.path.split(path)
        beside = self._beside(path, folder, name)
        if None not in beside:
            return beside
        for even_folder, odd_folder in self._half_folders(folder):
            found = self._in_folder(even_folder, name), self._in_folder(odd_folder, name)
            if None not in found:
                return _as_named(found[0], path), _as_named(found[1], path)
        return beside

    def _beside(self, path: Path, folder: str, name: str) -> tuple[Path | None, Path | None]:
        halves = self._folders.get(folder)
        if halves is None:
            halves = self._folders[folder] = self._listed(folder)
        if not halves:
            return None, None
        own = half_of(name, self._endings)
        if own is not None:
            pair = halves.get((own[0], own[2].lower()), {})
            return (path, pair.get("odd")) if own[1] == "even" else (pair.get("even"), path)
        stem, ending = split_ending(name, self._endings)
        # The halves of X_DW.mrc are called X_EVN.mrc and X_ODD.mrc.
        pair = halves.get((stem, ending.lower())) or halves.get(
            (exposure_name("", stem).exposure[1], ending.lower()), {}
        )
        return pair.get("even"), pair.get("odd")

    def _half_folders(self, folder: str) -> list[tuple[str, str]]:
        found = self._pairs_of_folders.get(folder)
        if found is None:
            # The folder above that of "x.mrc" is "..", that of "d/x.mrc" is "": as the user named it.
            plain = os.path.basename(folder) not in ("", ".", "..")  # noqa: PTH119
            above = os.path.dirname(folder) if plain else os.path.join(folder, "..")  # noqa: PTH118, PTH120
            places = (folder, above, os.path.join(above, _OLD_WARP))  # noqa: PTH118
            candidates = [(Path(at, even), Path(at, odd)) for at in places for even, odd in _FOLDERS]
            found = [(str(even), str(odd)) for even, odd in candidates if os.path.isdir(even) and os.path.isdir(odd)]  # noqa: PTH112
            self._pairs_of_folders[folder] = found
        return found

    def _in_folder(self, folder: str, name: str) -> Path | None:
        """Give the file of the same stem in a folder of halves: any known ending, with or without ``_EVN`` and the like."""
        if folder not in self._stems:
            stems: dict[str, Path] = {}
            for item in _names_in(folder):
                stem, ending = split_ending(item, self._endings)
                if ending:
                    stems.setdefault(_without_half(stem), Path(folder, item))
            self._stems[folder] = stems
        return self._stems[folder].get(_without_half(split_ending(name, self._endings)[0]))

    def _listed(self, folder: str) -> dict[tuple[str, str], dict[str, Path]]:
        halves: dict[tuple[str, str], dict[str, Path]] = {}
        for name in _names_in(folder):
            found = half_of(name, self._endings)
            if found is not None:
                sides = halves.setdefault((found[0], found[2].lower()), {})
                if found[1] not in sides:
                    sides[found[1]] = Path(folder, name)
        return halves


def _as_named(found: Path | None, path: Path) -> Path | None:
    """Give `path` itself if it is the file that was found, so that both have the same spelling."""
    return path if found is not None and os.path.abspath(found) == os.path.abspath(path) else found  # noqa: PTH100


def _names_in(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder or "."))
    except OSError:
        return []  # What is missing there is reported when it is opened.


def _without_half(stem: str) -> str:
    match = _HALF.fullmatch(stem)
    return match[1] if match else stem
