"""Which files only accompany a micrograph, and are not micrographs themselves: one rule for every command that searches.

A folder or a pattern may hold several files of one exposure (`cryoplug.inputs.exposure_names`). Those that are nearest to
the micrograph count: ``X.mrc`` if it is there, else ``X_DW.mrc``, else ``X_noDW.mrc``, else both halves, else the movie
``X_Fractions.mrc``. If movies are asked for and there are no halves, the movie counts. A file that is named by itself, or in
a list, always counts. But a shell replaces a pattern by the names of all files that fit. So if the user names several
exposures, each with all files that lie beside it, they count as a pattern.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryoplug.inputs.discovered import known_endings, split_ending
from cryoplug.inputs.exposure_names import ExposureName, Role, exposure_name

_SHOWN = 6
_ENDINGS_OF_MOVIES = (".tif", ".tiff", ".eer")
_LEAST_EXPOSURES = 2
"""Least number of exposures that look like a pattern; one micrograph and its power spectrum may be named one by one."""


def name_of(path: Path, endings: frozenset[str]) -> ExposureName:
    """Say which exposure a file shows, and in which role."""
    folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100 -- as text: for 100,000 names
    return exposure_name(folder, split_ending(name, endings)[0])


def companions(paths: Iterable[Path], *, movies: bool = False) -> set[Path]:
    """From the files of one search, give those that only accompany another one.

    Parameters
    ----------
    paths
        The files.
    movies
        Whether to prefer the movie of an exposure to its micrograph, unless its halves are there.
    """
    endings = known_endings()
    exposures: dict[tuple[str, str], list[tuple[ExposureName, Path]]] = defaultdict(list)
    for path in paths:
        known = name_of(path, endings)
        exposures[known.exposure].append((known, path))
    found: set[Path] = set()
    for named in exposures.values():
        files = _with_movies_above(named)
        roles = {role for role, _ in files}
        wanted = Role.MOVIE if movies and Role.MOVIE in roles and Role.HALF not in roles else min(roles)
        found.update(path for role, path in files if role != wanted)
    return found


def _with_movies_above(named: Sequence[tuple[ExposureName, Path]]) -> list[tuple[Role, Path]]:
    """Give the role of each file of an exposure: beside ``average/X.mrc``, ``X.tif`` in the folder above is the movie."""
    summed = any(known.is_sum for known, _ in named)
    return [
        (Role.MOVIE if summed and known.role == Role.MICROGRAPH and not known.is_sum else known.role, path)
        for known, path in named
    ]


def expanded_by_the_shell(named: Sequence[Path], *, movies: bool = False) -> set[Path]:
    """From files that were named one by one, give the companions, if the names look like a pattern that the shell replaced.

    Parameters
    ----------
    named
        All files that were named one by one.
    movies
        As for `companions`.

    Returns
    -------
    set[Path]
        Empty unless at least two exposures are named with all their files in the same folder.
    """
    left_out = companions(named, movies=movies)
    if not left_out:
        return left_out
    endings = known_endings()
    exposure_of = {path: name_of(path, endings).exposure for path in named}
    beside: dict[str, _Beside] = {}
    for path in named:
        folder = os.path.dirname(path)  # noqa: PTH120
        if folder not in beside:
            beside[folder] = _Beside(folder, endings)
        beside[folder].name(path.name, exposure_of[path])
    doubtful = {exposure_of[path] for path in left_out}
    whole = {exposure for exposure in doubtful if all(item.all_named(exposure) for item in beside.values())}
    if len(whole) < _LEAST_EXPOSURES:
        return set()
    return {path for path in left_out if exposure_of[path] in whole}


class _Beside:
    """The files of one folder, by exposure, and which of them were named."""

    def __init__(self, folder: str, endings: frozenset[str]) -> None:
        self._endings = endings
        self._named: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._files: dict[tuple[str, str], set[str]] = defaultdict(set)
        try:
            names = os.listdir(folder or ".")
        except OSError:
            names = []
        for name in names:
            self._files[name_of(Path(folder, name), endings).exposure].add(name)

    def name(self, name: str, exposure: tuple[str, str]) -> None:
        """Note that a file was named."""
        self._named[exposure].add(name)

    def all_named(self, exposure: tuple[str, str]) -> bool:
        """Say whether every file of an exposure was named; only endings count that were named at all."""
        named = self._named[exposure]
        kinds = {split_ending(name, self._endings)[1] for name in named}
        return all(name in named for name in self._files[exposure] if split_ending(name, self._endings)[1] in kinds)


def _unmarked(path: Path) -> str:
    return "movies" if path.name.lower().endswith(_ENDINGS_OF_MOVIES) else "micrographs of movies"


def left_out_note(left_out: Sequence[Path]) -> str:
    """Say which files were left out because they only accompany micrographs; empty if there are none."""
    if not left_out:
        return ""
    endings = known_endings()
    marks = Counter(name_of(path, endings).mark or _unmarked(path) for path in left_out)
    shown = ", ".join(f"{mark} {count}" for mark, count in marks.most_common(_SHOWN))
    files = "1 file that only accompanies a micrograph is" if len(left_out) == 1 else (
        f"{len(left_out)} files that only accompany micrographs are"
    )  # fmt: skip
    return f"{files} left out ({shown}); to take them, name them in a list (a text file with one path a line)"
