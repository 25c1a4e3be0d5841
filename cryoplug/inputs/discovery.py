"""Find the micrographs that the user named: by files, folders, patterns, STAR files, datasets or lists."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cryoplug.disk.atomic import PARTIAL_SUFFIX
from cryoplug.errors import InputError, MissingInputError, StorageError, UsageError
from cryoplug.inputs.companions import companions, expanded_by_the_shell, left_out_note
from cryoplug.inputs.discovered import (
    DiscoveredMicrograph,
    known_endings,
    searched_endings,
    split_section,
    with_section,
    with_unique_names,
)
from cryoplug.inputs.half_names import SiblingHalves, side_of
from cryoplug.inputs.lists import from_cs, from_star, from_text
from cryoplug.store.raw import MANIFEST_NAME

__all__ = [
    "CS_SUFFIX",
    "KINDS",
    "STAR_SUFFIX",
    "DiscoveredMicrograph",
    "Discovery",
    "discover",
    "find",
    "words_for_whole",
]

STAR_SUFFIX = ".star"
CS_SUFFIX = ".cs"
TEXT_SUFFIXES = (".txt", ".lst", ".list")
KINDS = ("micrographs", "movies", "either")
MOST_WORDS = 8
"""Most words to suggest in a command; nobody reads a longer one."""
_PATTERN = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Discovery:
    """The micrographs that were found, and the files that were left out."""

    micrographs: tuple[DiscoveredMicrograph, ...]
    """In order, each once; at least one."""
    companions: tuple[Path, ...] = ()
    """Files that only accompany a micrograph; see `cryoplug.inputs.companions`."""

    @property
    def note(self) -> str:
        """The sentence for the user; empty if nothing was left out."""
        return left_out_note(self.companions)


def discover(
    inputs: Sequence[str], *, kind: str = "micrographs", side: str | None = None
) -> list[DiscoveredMicrograph]:
    """List the micrographs that the user named; see `find`, which also lists the files that were left out."""
    return list(find(inputs, kind=kind, side=side).micrographs)


def words_for_whole(
    inputs: Sequence[str], micrographs: Sequence[DiscoveredMicrograph], halves: Collection[Path]
) -> tuple[str, ...]:
    """Give the words that make `denoise` find the same micrographs; none if halves were named, or above `MOST_WORDS`.

    Parameters
    ----------
    inputs
        Names as the user gave them.
    micrographs
        The micrographs found there.
    halves
        Absolute paths of the files that were used as halves.
    """
    named_halves = any(item.path.absolute() in halves for item in micrographs)
    return () if named_halves or len(inputs) > MOST_WORDS else tuple(inputs)


def find(inputs: Sequence[str], *, kind: str = "micrographs", side: str | None = None) -> Discovery:
    """List the micrographs that the user named, in order, each once.

    Parameters
    ----------
    inputs
        Files; sections of stacks (``000012@stack.mrcs``, from 1); folders, searched in all depths for known endings,
        sorted, without hidden files; patterns (``*``, ``?``, ``[...]``, ``**``); STAR files, cryoSPARC datasets (``.cs``)
        and text files (``.txt``, ``.lst``, ``.list``) with a path a line; paths of lists are looked up from the working
        folder, then from the folder of the list and the folders above it (the project).
    kind
        What to take from STAR files and datasets. ``micrographs``: for a list of particles, the micrographs that they were
        picked on; if it does not name them, the particles as sections of their stacks. ``movies``: movies. ``either``:
        micrographs if there are any, else movies. Files, folders and patterns give whatever they hold. If the movie of an
        exposure lies beside its micrograph, they give the micrograph; for ``movies`` and ``either``, the movie.
    side
        ``even`` or ``odd``: from a folder or pattern that holds halves, by their names, take only these.

    Returns
    -------
    Discovery
        At least one micrograph. From a path in RELION's layout ``X/jobNNN/rest`` in a STAR file, ``rest`` becomes the name of
        the output; if two names collide, both get their parent folders in front. ``even`` and ``odd`` come from
        ``rlnMicrographNameEven`` and ``rlnMicrographNameOdd``, else from files beside the micrograph: see
        `cryoplug.inputs.half_names`.

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
    endings, movies = known_endings(), kind != "micrographs"
    siblings = SiblingHalves(endings)
    found: dict[tuple[str, int | None], DiscoveredMicrograph] = {}
    left_out: dict[str, Path] = {}
    by_itself: list[Path] = []
    for text in inputs:
        if "\0" in text or not text:
            raise MissingInputError(f"{text!r}: this cannot be a file name; correct it")
        names = _names(text)
        items = list(_expand(text, kind, endings))
        aside: set[Path] = set()
        if names == "many":
            asked_for = [item for item in items if side is not None and side_of(item.path, endings) == side]
            items = asked_for or items
            aside = companions((item.path for item in items if item.list_path is None), movies=movies)
        if names == "a file":
            by_itself += [item.path for item in items]
        for item in items:
            # abspath, not resolve: a link is what the user named, and resolving 100,000 paths takes seconds.
            absolute = os.path.abspath(item.path)  # noqa: PTH100
            if item.path in aside:
                left_out[absolute] = item.path
            else:
                found.setdefault((absolute, item.section), item)
    for path in expanded_by_the_shell(by_itself, movies=movies):
        absolute = os.path.abspath(path)  # noqa: PTH100
        left_out[absolute] = found.pop((absolute, None)).path
    if not found:
        known = ", ".join([*sorted(endings), STAR_SUFFIX, CS_SUFFIX, *TEXT_SUFFIXES])
        named = ", ".join(inputs) or "no input"
        if any((Path(text) / MANIFEST_NAME).is_file() for text in inputs):
            raise InputError(
                f"{named}: this is a training set of cryoplug convert; name the micrographs it was made of"
            )
        raise InputError(f"{named}: no micrograph was found (endings: {known}); name files or folders")
    micrographs = with_unique_names(
        [
            (with_section(absolute, section, endings), _with_halves(item, siblings))
            for (absolute, section), item in found.items()
        ]
    )
    # Named once more by itself or in a list, it counts.
    aside_at_last = [path for absolute, path in left_out.items() if (absolute, None) not in found]
    return Discovery(tuple(micrographs), tuple(aside_at_last))


def _names(text: str) -> str:
    """Say what a text names: ``many`` files, which must be searched for, ``a file``, or something ``else``."""
    if os.path.lexists(text):
        if os.path.isdir(text):  # noqa: PTH112 -- Path.is_dir raises where a folder above may not be searched
            return "many"
        return "else" if text.lower().endswith((STAR_SUFFIX, CS_SUFFIX, *TEXT_SUFFIXES)) else "a file"
    return "many" if split_section(text)[0] is None and _PATTERN.search(text) else "else"


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
    elif path.suffix.lower() in TEXT_SUFFIXES and not path.name.lower().endswith(tuple(endings)):
        yield from from_text(path, endings)
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
