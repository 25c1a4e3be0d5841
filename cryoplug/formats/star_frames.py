"""Use the library starfile: make new STAR tables, give tables as pandas' DataFrames, and compare its reading with cryoplug's.

Files that pass through cryoplug are read and written by its own reader, token by token (docs/decisions/0001). New tables are
formatted by starfile. pandas and starfile are imported when they are first needed, because that takes half a second.
"""

from __future__ import annotations

import csv
import linecache
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryoplug.errors import FormatError
from cryoplug.formats.star_parser import parse_star
from cryoplug.formats.star_text import StarBlock, StarFile

if TYPE_CHECKING:
    import pandas

VERSION_COMMENT = "# version 30001"
_NAMES = ("Name", "File", "Image", "Metadata", "NameRaw", "NameEven", "NameOdd")
"""Endings of columns that hold names; there, 001 is text."""
_SHOWN = 5
_UNWRITABLE = re.compile(r"""^["'#;]|[\x00-\x1f\x7f\x85]""")
"""Text that a new table cannot hold: quotes and comment signs at the start, and white space other than the space."""


def star_from_tables(tables: Mapping[str, Mapping[str, Sequence[Any]]], path: Path) -> StarFile:
    """Make a STAR file from tables.

    Parameters
    ----------
    tables
        Tables by block name: columns without underscore, one value per row. Floats get six digits after the point.
    path
        Path of the file.

    Returns
    -------
    StarFile
        The file as it will be read back; each block has RELION's version line.

    Raises
    ------
    FormatError
        A value cannot be written into a STAR file.
    """
    import pandas
    import starfile

    frames = {
        name: pandas.DataFrame({key: list(map(_carried, values)) for key, values in columns.items()})
        for name, columns in tables.items()
    }
    for columns in tables.values():
        for name, values in columns.items():
            check_texts((value for value in values if isinstance(value, str)), path, name)
    try:
        text = starfile.to_string(frames)
    except csv.Error as error:
        raise FormatError(f"{path}: a value holds a line break or a quote that cannot be written ({error})") from error
    made = parse_star(_brought_back(text), path)
    _check_kept(tables, made)
    # starfile begins with a comment that holds the time of day: a file must not differ where nothing does.
    blocks = [
        StarBlock(block.name, block.is_loop, block.columns, block.rows, [VERSION_COMMENT]) for block in made.blocks
    ]
    return StarFile(blocks, path)


def check_texts(values: Iterable[str], path: Path, column: str) -> None:
    """Raise `FormatError` for a text that starfile cannot write so that all programs read it unchanged."""
    wrong = next((value for value in values if _UNWRITABLE.search(value)), None)
    if wrong is not None:
        raise FormatError(
            f"{path}: {column} {wrong!r} cannot be written into a STAR file that all programs read; rename it"
        )


def _check_kept(tables: Mapping[str, Mapping[str, Sequence[Any]]], made: StarFile) -> None:
    """Raise `FormatError` if a text changes when it is read back: starfile quotes spaces, but not ``#a`` or ``data_b``."""
    for name, columns in tables.items():
        block = made.block(name)
        for column, values in columns.items():
            found = block.column(column) if block is not None and column in block.columns else []
            for value, text in zip_longest(values, found):
                if value is None or text is None or (isinstance(value, str) and _bytes(value) != _bytes(text)):
                    raise FormatError(
                        f"{made.path}: {column} {value!r} cannot be written into a STAR file that all programs read; rename it"
                    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _carried(value: Any) -> Any:
    """Give a text as one letter per byte, because file names may hold bytes that pandas refuses (PEP 383)."""
    return _bytes(value).decode("latin-1") if isinstance(value, str) else value


def _brought_back(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "surrogateescape")


def star_from_frames(frames: Mapping[str, pandas.DataFrame], path: str | Path = "frames.star") -> StarFile:
    """Make a STAR file from DataFrames, as users of starfile have them; `cryoplug.write_star` writes it.

    Parameters
    ----------
    frames
        DataFrames by block name, without ``data_``.
    path
        Path of the file.
    """
    return star_from_tables(
        {name: {str(key): frame[key] for key in frame} for name, frame in frames.items()}, Path(path)
    )


def star_frames(star: StarFile) -> dict[str, pandas.DataFrame]:
    """Give every block of a STAR file as a DataFrame, as starfile does.

    A column of numbers becomes numeric, except columns that hold names (``001`` stays text). A block that is not a table has
    one row.
    """
    import pandas

    found = {}
    for block in star.blocks:
        columns = {}
        for name in block.columns:
            values = pandas.Series(block.column(name), dtype="object")
            columns[name] = values if name.endswith(_NAMES) else _numbers(values)
        found[block.name] = pandas.DataFrame(columns)
    return found


def _numbers(values: pandas.Series[Any]) -> pandas.Series[Any]:
    import pandas

    try:
        return pandas.to_numeric(values)
    except (ValueError, TypeError):
        return values


def second_opinion(star: StarFile) -> list[str]:
    """List where starfile, and tools built on it, will read a STAR file wrongly.

    Parameters
    ----------
    star
        The file, as cryoplug's own reader read it from ``star.path``.

    Returns
    -------
    list[str]
        One sentence for each kind of difference; empty if there is none.
    """
    import starfile

    # starfile reads through linecache, which remembers a file that has changed since.
    linecache.clearcache()
    columns = sorted({name for block in star.blocks for name in block.columns})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = starfile.read(star.path, always_dict=True, parse_as_string=columns)
    except Exception as error:  # noqa: BLE001 -- whatever it raises, its users will meet it
        why = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        return [f"starfile and the tools built on it cannot read this file ({type(error).__name__}: {why})"]
    return list(_differences(star, theirs))


def _differences(star: StarFile, theirs: Mapping[str, Any]) -> Iterator[str]:
    found: list[tuple[str, str, str]] = []
    for block in star.blocks:
        if not block.columns:
            continue
        other = theirs.get(block.name)
        if other is None:
            yield f"starfile and the tools built on it do not see data_{block.name}"
            continue
        for name in block.columns:
            mine = block.column(name)
            values = [other.get(name)] if isinstance(other, dict) else list(other[name]) if name in other else []
            if len(values) != len(mine):
                yield f"starfile and the tools built on it read {len(values)} rows of {name}, not {len(mine)}"
                continue
            found += [(name, one, repr(two)) for one, two in zip(mine, values, strict=True) if one != two]
    if found:
        shown = ", ".join(f"{one!r} as {two} ({name})" for name, one, two in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        yield f"starfile and the tools built on it will read {shown}{more}; rename the files, or take care with them"
