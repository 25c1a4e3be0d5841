"""The micrographs, movies or particles that a STAR file, a cryoSPARC dataset or a text file lists."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from cryoplug.disk.opening import read_errors
from cryoplug.errors import FormatError
from cryoplug.formats.cs import cs_images
from cryoplug.formats.star import (
    MICROGRAPH_COLUMN,
    ImageTable,
    StarFile,
    image_table,
    is_tilt_series,
    read_star,
    tilt_series_stars,
)
from cryoplug.inputs.discovered import (
    DiscoveredMicrograph,
    name_below_job,
    split_ending,
    split_section,
    with_section,
)

EVEN_COLUMN = "rlnMicrographNameEven"
ODD_COLUMN = "rlnMicrographNameOdd"
_MOST_TEXT_BYTES = 64 << 20
_LONGEST_PATH = 4096


def from_star(star_path: Path, kind: str, endings: frozenset[str]) -> Iterator[DiscoveredMicrograph]:
    """List the images of a STAR file, each once, with the first row that names it; from a list of tilt series, all views.

    Raises
    ------
    FormatError
        It cannot be read, lists no images of that kind, or a row names no file.
    """
    star = read_star(star_path)
    series = tilt_series_stars(star)
    if not series:
        yield from _images_of(star, kind, endings)
    project = _Project(star_path)
    for name, size in series.items():
        path = project.path(name)
        if not path.is_file():
            advice = "run from the project folder, or give the STAR files of the series themselves"
            raise FormatError(f"{star_path}: it lists tilt series, of which {name} is not there; {advice}")
        for item in _images_of(read_star(path), kind, endings):
            yield item if item.pixel_size_angstrom else replace(item, pixel_size_angstrom=size)


def _images_of(star: StarFile, kind: str, endings: frozenset[str]) -> Iterator[DiscoveredMicrograph]:
    star_path = star.path
    table = image_table(star, kind)
    names = table.names
    if not names:
        raise FormatError(f"{star_path}: the table of {_named_kind(kind)} is empty; select some first")
    project = _Project(star_path)
    even, odd = _half_names(table, EVEN_COLUMN), _half_names(table, ODD_COLUMN)
    of_series = is_tilt_series(table.block)
    seen: set[str] = set()
    for row, (name, size) in enumerate(zip(names, table.pixel_sizes, strict=True)):
        section, file_name = split_section(name)
        if not file_name or "\0" in file_name or section == 0:
            allowed = "a path, or a section from 1 and a path: 000012@stack.mrcs"
            raise FormatError(f"{star_path}: row {row + 1} of {table.column} has {name!r}; allowed: {allowed}")
        if name in seen:
            continue  # particle tables name a micrograph many times
        seen.add(name)
        yield DiscoveredMicrograph(
            path=project.path(file_name),
            relative=PurePosixPath(with_section(name_below_job(file_name), section, endings)),
            star_row=row,
            star_path=star_path,
            pixel_size_angstrom=size,
            section=section,
            stack_relative=PurePosixPath(name_below_job(file_name)),
            list_path=star_path,
            series=star_path if of_series else None,
            even=project.path(even[row]) if even[row] else None,
            odd=project.path(odd[row]) if odd[row] else None,
        )


def from_cs(path: Path, kind: str, endings: frozenset[str]) -> Iterator[DiscoveredMicrograph]:
    """List the images of a cryoSPARC dataset, each once; errors are those of `cs_images`."""
    project = _Project(path)
    seen: set[tuple[str, int | None]] = set()
    for image in cs_images(path, kind):
        if (image.name, image.section) in seen:
            continue
        seen.add((image.name, image.section))
        yield DiscoveredMicrograph(
            path=project.path(image.name, is_exported=image.is_exported),
            relative=PurePosixPath(with_section(name_below_job(image.name), image.section, endings)),
            pixel_size_angstrom=image.pixel_size_angstrom,
            section=image.section,
            stack_relative=PurePosixPath(name_below_job(image.name)),
            list_path=path,
            list_row=image.row,
        )


def from_text(path: Path, endings: frozenset[str]) -> Iterator[DiscoveredMicrograph]:
    """List the images that a text file names, one a line, each once.

    Empty lines and lines that begin with ``#`` do not count, unless there is a file of that name.

    Raises
    ------
    MissingInputError
        There is no such file.
    FormatError
        It is not text, it is too long, it names nothing, or a line is not a path.
    """
    with read_errors(path):
        if path.stat().st_size > _MOST_TEXT_BYTES:
            raise FormatError(
                f"{path}: more than {_MOST_TEXT_BYTES >> 20} MB, too long for a list of paths; check the file"
            )
        content = path.read_bytes()
    if b"\0" in content:
        raise FormatError(f"{path}: this is not a text file; a list of micrographs has one path a line")
    project = _Project(path)
    seen: set[str] = set()
    for number, line in enumerate(content.decode("utf-8-sig", "surrogateescape").splitlines(), start=1):
        name = line.strip()
        if not name or name in seen or (name.startswith("#") and not os.path.lexists(project.path(name))):
            continue
        seen.add(name)
        section, file_name = split_section(name)
        if section == 0 or len(name) > _LONGEST_PATH or not split_ending(file_name, endings)[1]:
            allowed = "a path with the ending of a micrograph (a section from 1 as in 000012@stack.mrcs)"
            raise FormatError(f"{path}: line {number} is {name[:60]!r}; allowed: {allowed}")
        yield DiscoveredMicrograph(
            path=project.path(file_name),
            relative=PurePosixPath(with_section(name_below_job(file_name), section, endings)),
            section=section,
            stack_relative=PurePosixPath(name_below_job(file_name)),
            list_path=path,
        )
    if not seen:
        raise FormatError(f"{path}: names no micrograph; give one path a line")


class _Project:
    """Looks up the paths of a list: from the working folder, the folder of the list, and the folders above that."""

    def __init__(self, list_path: Path) -> None:
        self._roots = ["", *map(str, list_path.absolute().parents)]
        self._found: dict[tuple[str, bool], list[str]] = {}

    def path(self, name: str, *, is_exported: bool = False) -> Path:
        """Give the first file of that name; if there is none, the name itself.

        With `is_exported` the working folder comes last.
        """
        folder, last = os.path.split(name)
        found = self._found.get((folder, is_exported))
        if found is None:
            # Most names of a list lie in a few folders: looked up once, a name costs one question to the disk.
            roots = self._roots[1:] + self._roots[:1] if is_exported else self._roots
            candidates = [os.path.join(root, folder) for root in roots]  # noqa: PTH118
            found = [item for item in dict.fromkeys(candidates) if os.path.isdir(item or ".")]  # noqa: PTH112
            self._found[folder, is_exported] = found
        for item in found:
            candidate = os.path.join(item, last)  # noqa: PTH118 -- a third of the time of Path for 100,000 names
            if os.path.lexists(candidate):
                return Path(candidate)
        return Path(name)


def _half_names(table: ImageTable, column: str) -> list[str]:
    if table.column != MICROGRAPH_COLUMN or column not in table.block.columns:
        return [""] * len(table.block.rows)
    return ["" if name.lower() == "none" else name for name in table.block.column(column)]


def _named_kind(kind: str) -> str:
    return "micrographs or movies" if kind == "either" else kind
