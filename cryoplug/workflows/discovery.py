"""From what the user named to a list of micrographs: files, folders, patterns, STAR files, cryoSPARC datasets."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from cryoplug.core.atomic import PARTIAL_SUFFIX
from cryoplug.errors import InputError, MissingInputError, StorageError, UsageError
from cryoplug.workflows.discovered import (
    DiscoveredMicrograph,
    known_endings,
    searched_endings,
    split_section,
    with_section,
    with_unique_names,
)
from cryoplug.workflows.discovery_lists import from_cs, from_star
from cryoplug.workflows.halves_names import SiblingHalves

__all__ = ["CS_SUFFIX", "KINDS", "STAR_SUFFIX", "DiscoveredMicrograph", "discover"]

STAR_SUFFIX = ".star"
CS_SUFFIX = ".cs"
KINDS = ("micrographs", "movies", "either")
_PATTERN = re.compile(r"[*?\[]")


def discover(inputs: Sequence[str], *, kind: str = "micrographs") -> list[DiscoveredMicrograph]:
    """List the micrographs that the user named, in order, each once.

    Parameters
    ----------
    inputs
        Files; sections of stacks (``000012@stack.mrcs``, from 1); folders, searched in all depths for known endings,
        sorted, without hidden files; patterns (``*``, ``?``, ``[...]``, ``**``); STAR files and cryoSPARC datasets
        (``.cs``), whose paths are looked up from the working folder, then from the folder of the list and the folders
        above it (the project).
    kind
        What STAR files and datasets are asked for. ``micrographs``: for particles those that they were picked on, and
        where those are not named, the particles as sections of their stacks. ``movies``. ``either``: micrographs where
        there are any, else movies. Files, folders and patterns give whatever they hold.

    Returns
    -------
    list[DiscoveredMicrograph]
        At least one. A path in RELION's layout ``X/jobNNN/rest`` of a STAR file keeps ``rest``; where two names
        collide, parent folders are put before both. ``even`` and ``odd`` come from ``rlnMicrographNameEven`` and
        ``rlnMicrographNameOdd``, else they are files beside it: see `cryoplug.workflows.halves_names`.

    Raises
    ------
    MissingInputError
        A pattern matches nothing, or a STAR file or dataset is missing.
    FormatError
        A STAR file or dataset cannot be read or lists no images of that kind.
    InputError
        Nothing was found at all.
    StorageError
        A folder cannot be read.
    """
    if kind not in KINDS:
        raise UsageError(f"kind {kind!r}; allowed: {', '.join(KINDS)}")
    endings = known_endings()
    siblings = SiblingHalves(endings)
    found: dict[tuple[str, int | None], DiscoveredMicrograph] = {}
    for text in inputs:
        if "\0" in text or not text:
            raise MissingInputError(f"{text!r}: this cannot be a file name; correct it")
        for item in _expand(text, kind, endings):
            # abspath, not resolve: a link is what the user named, and resolving 100,000 paths takes seconds.
            found.setdefault((os.path.abspath(item.path), item.section), item)  # noqa: PTH100
    if not found:
        known = ", ".join([*sorted(endings), STAR_SUFFIX, CS_SUFFIX])
        named = ", ".join(inputs) or "no input"
        raise InputError(f"{named}: no micrograph was found (endings: {known}); name files or folders")
    return with_unique_names(
        [
            (with_section(absolute, section, endings), _with_halves(item, siblings))
            for (absolute, section), item in found.items()
        ]
    )


def _with_halves(item: DiscoveredMicrograph, siblings: SiblingHalves) -> DiscoveredMicrograph:
    if item.section is not None or (item.even is not None and item.odd is not None):
        return item
    even, odd = siblings.of(item.path)
    if even is None and odd is None:
        return item
    return replace(item, even=item.even or even, odd=item.odd or odd)


def _expand(text: str, kind: str, endings: frozenset[str]) -> Iterator[DiscoveredMicrograph]:
    if os.path.lexists(text):
        yield from _expand_path(Path(text), kind, endings)
        return
    section, rest = split_section(text)
    if section is not None:
        if section == 0:
            raise InputError(f"{text}: section 0; sections of a stack are counted from 1; correct it")
        yield DiscoveredMicrograph(
            Path(rest), PurePosixPath(with_section(Path(rest).name, section, endings)), section=section
        )
    elif _PATTERN.search(text):
        matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 -- Path.glob refuses absolute patterns
        matches = [match for match in matches if not match.endswith(PARTIAL_SUFFIX)]
        if not matches:
            raise MissingInputError(f"{text}: no file matches this pattern; check it, and quote it in the shell")
        for match in matches:
            yield from _expand_path(Path(match), kind, endings)
    else:
        yield from _expand_path(Path(text), kind, endings)


def _expand_path(path: Path, kind: str, endings: frozenset[str]) -> Iterator[DiscoveredMicrograph]:
    # os.path.isdir and not Path.is_dir: that raises where a folder above may not be searched.
    if os.path.isdir(path):  # noqa: PTH112
        yield from _from_folder(path)
    elif path.suffix.lower() == STAR_SUFFIX:
        yield from from_star(path, kind, endings)
    elif path.suffix.lower() == CS_SUFFIX:
        yield from from_cs(path, kind, endings)
    else:
        yield DiscoveredMicrograph(path, PurePosixPath(path.name))


def _from_folder(folder: Path) -> Iterator[DiscoveredMicrograph]:
    suffixes = searched_endings()
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        # A folder that goes away during the search has nothing in it any more.
        if not isinstance(error, FileNotFoundError):
            raise StorageError(f"{error.filename}: this folder cannot be read: {error.strerror}; check permissions")

    for root, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        try:
            status = Path(root).stat()
        except OSError as error:
            refuse(error)
            folders.clear()
            continue
        # A link to a folder above would be walked for ever.
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = PurePosixPath(Path(root).relative_to(folder))
        for name in sorted(names):
            if not name.startswith(".") and name.lower().endswith(suffixes):
                yield DiscoveredMicrograph(Path(root, name), below / name)
