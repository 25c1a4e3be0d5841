"""From what the user named to a list of micrographs: files, folders, patterns and STAR files."""

from __future__ import annotations

import glob
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cryoplug.core.atomic import PARTIAL_SUFFIX
from cryoplug.errors import FormatError, InputError, MissingInputError, StorageError
from cryoplug.formats.registry import formats
from cryoplug.formats.star import micrograph_table, pixel_sizes, read_star

_JOB_FOLDER = re.compile(r"job\d{3,}")
_PATTERN = re.compile(r"[*?\[]")
STAR_SUFFIX = ".star"


@dataclass(frozen=True)
class DiscoveredMicrograph:
    """One micrograph to work on; whether it can be read shows when it is opened."""

    path: Path
    """The file; it may be missing, which is then reported for it alone."""
    relative: PurePosixPath
    """Its name below an output folder: no ``..``, not absolute, different for every micrograph of a list."""
    star_row: int | None = None
    """Row of the micrograph table that names it (the first one, when several do), from 0."""
    star_path: Path | None = None
    """The STAR file that names it."""
    pixel_size_angstrom: float | None = None
    """Pixel size that the STAR file gives."""


def discover(inputs: Sequence[str]) -> list[DiscoveredMicrograph]:
    """List the micrographs that the user named, in order, each file once.

    Parameters
    ----------
    inputs
        Files; folders, searched in all depths for known endings, sorted, without hidden files; patterns (``*``, ``?``,
        ``[...]``, ``**``); STAR files, whose paths are looked up from the working folder, then from the folder of the
        STAR file and the folders above it (the project).

    Returns
    -------
    list[DiscoveredMicrograph]
        At least one. A path in RELION's layout ``X/jobNNN/rest`` of a STAR file keeps ``rest``; where two names
        collide, parent folders are put before both.

    Raises
    ------
    MissingInputError
        A pattern matches nothing, or a STAR file is missing.
    FormatError
        A STAR file cannot be read or lists no micrographs.
    InputError
        Nothing was found at all.
    """
    found: dict[str, DiscoveredMicrograph] = {}
    for text in inputs:
        if "\0" in text or not text:
            raise MissingInputError(f"{text!r}: this cannot be a file name; correct it")
        for item in _expand(text):
            # abspath, not resolve: a link is what the user named, and resolving 100,000 paths takes seconds.
            found.setdefault(os.path.abspath(item.path), item)  # noqa: PTH100
    if not found:
        endings = ", ".join(_known_suffixes())
        named = ", ".join(inputs) or "no input"
        raise InputError(f"{named}: no micrograph was found (endings: {endings}, {STAR_SUFFIX}); name files or folders")
    return _with_unique_names(list(found.items()))


def _expand(text: str) -> Iterator[DiscoveredMicrograph]:
    path = Path(text)
    if _PATTERN.search(text) and not os.path.lexists(path):
        matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 -- Path.glob refuses absolute patterns
        matches = [match for match in matches if not match.endswith(PARTIAL_SUFFIX)]
        if not matches:
            raise MissingInputError(f"{text}: no file matches this pattern; check it, and quote it in the shell")
        for match in matches:
            yield from _expand_path(Path(match))
        return
    yield from _expand_path(path)


def _expand_path(path: Path) -> Iterator[DiscoveredMicrograph]:
    if path.is_dir():
        yield from _from_folder(path)
    elif path.suffix.lower() == STAR_SUFFIX:
        yield from _from_star(path)
    else:
        yield DiscoveredMicrograph(path, PurePosixPath(path.name))


def _from_folder(folder: Path) -> Iterator[DiscoveredMicrograph]:
    suffixes = _known_suffixes()
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise StorageError(f"{error.filename}: this folder cannot be read: {error.strerror}; check permissions")

    for root, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        status = Path(root).stat()
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


def _from_star(star_path: Path) -> Iterator[DiscoveredMicrograph]:
    star = read_star(star_path)
    names = micrograph_table(star).column("rlnMicrographName")
    if not names:
        raise FormatError(f"{star_path}: the table of micrographs is empty; select some first")
    folders = [Path(), *star_path.absolute().parents]
    seen: set[str] = set()
    for row, (name, size) in enumerate(zip(names, pixel_sizes(star), strict=True)):
        if not name or "\0" in name:
            raise FormatError(f"{star_path}: row {row + 1} of the micrographs names no file ({name!r}); correct it")
        if name in seen:
            continue  # particle tables name a micrograph many times
        seen.add(name)
        path = _look_up(name, folders)
        yield DiscoveredMicrograph(path, _name_below_job(name), row, star_path, size)


def _look_up(name: str, folders: list[Path]) -> Path:
    for folder in folders:
        candidate = folder / name
        if os.path.lexists(candidate):
            return candidate
    return Path(name)


def _name_below_job(name: str) -> PurePosixPath:
    # RELION pairs coordinates with micrographs by what follows X/jobNNN/.
    parts = _safe_parts(name)
    jobs = [index for index, part in enumerate(parts[:-1]) if index > 0 and _JOB_FOLDER.fullmatch(part)]
    if jobs:
        return PurePosixPath(*parts[jobs[-1] + 1 :])
    # Of a path from the root only the name is kept: the rest is this machine's, not the project's.
    return PurePosixPath(parts[-1] if name.startswith("/") else PurePosixPath(*parts))


def _safe_parts(name: str) -> list[str]:
    parts = [part for part in PurePosixPath(os.path.normpath(name)).parts if part not in ("/", "//", "..", ".")]
    return parts or ["micrograph"]


def _with_unique_names(items: list[tuple[str, DiscoveredMicrograph]]) -> list[DiscoveredMicrograph]:
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
    parts = _safe_parts(absolute)
    depth = len(PurePosixPath(name).parts)
    return "/".join(parts[-(depth + 1) :]) if depth < len(parts) else name


def _known_suffixes() -> tuple[str, ...]:
    return tuple(sorted({suffix for spec in formats().values() for suffix in spec.extensions}))
