"""The tables of STAR files as text, and their output in RELION's layout.

Values are never converted to numbers and back: a value that is not changed on purpose is written as it was read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryoplug.errors import FormatError, UsageError

SPACE = " \t\r\x0b\x0c"
TOKEN = re.compile(rf"[^{SPACE}\n]+")
_RESERVED = ("data_", "loop_", "save_", "stop_", "global_")


@dataclass(frozen=True)
class StarBlock:
    """One ``data_`` block: a table (``loop_``) or a list of names with one value each."""

    name: str
    """Name after ``data_``; may be empty."""
    is_loop: bool
    """True: a table (``loop_``); False: a list with exactly one row. A block without columns is an empty list."""
    columns: list[str] = field(default_factory=list)
    """Column names without the leading underscore, in file order, each once."""
    rows: list[list[str]] = field(default_factory=list)
    """Values as text without quotes; every row as long as `columns`."""
    preamble: list[str] = field(default_factory=list)
    """Comment lines before the block with their ``#``: ``# version 30001``."""
    notes: dict[str, str] = field(default_factory=dict)
    """Comments after the name of a column, without the running number that RELION puts there."""

    def column(self, name: str) -> list[str]:
        """Give the values of a column, one per row.

        Raises
        ------
        FormatError
            There is no such column; the message lists the columns of the block.
        """
        if name not in self.columns:
            raise FormatError(f"block {self.name!r} has no column {name}; it has: {', '.join(self.columns) or 'none'}")
        index = self.columns.index(name)
        return [row[index] for row in self.rows]

    def with_column(self, name: str, values: Sequence[str]) -> StarBlock:
        """Give a copy with new values in a column; a new column goes to the end.

        Parameters
        ----------
        name
            Name of the column without the underscore.
        values
            One text per row.
        """
        if len(values) != len(self.rows):
            raise UsageError(f"block {self.name!r}: {len(values)} values of {name} for {len(self.rows)} rows")
        if name not in self.columns:
            rows = [[*row, value] for row, value in zip(self.rows, values, strict=True)]
            return replace(self, columns=[*self.columns, name], rows=rows)
        index = self.columns.index(name)
        rows = [[*row[:index], value, *row[index + 1 :]] for row, value in zip(self.rows, values, strict=True)]
        return replace(self, rows=rows)


@dataclass(frozen=True)
class StarFile:
    """All blocks of a STAR file."""

    blocks: list[StarBlock]
    """Blocks in file order; each name occurs once."""
    path: Path
    """Path from which it was read, or to which it will be written."""
    epilogue: list[str] = field(default_factory=list)
    """Comment lines after the last block."""

    def block(self, name: str) -> StarBlock | None:
        """Give the block of this name; None if there is none."""
        return next((block for block in self.blocks if block.name == name), None)

    def with_block(self, block: StarBlock) -> StarFile:
        """Give a copy in which `block` replaces the block of its name; a new block goes to the end."""
        if self.block(block.name) is None:
            return replace(self, blocks=[*self.blocks, block])
        return replace(self, blocks=[block if old.name == block.name else old for old in self.blocks])


def format_star(star: StarFile) -> str:
    """Give the text of a STAR file in RELION's layout; reading it gives the same blocks, columns and values.

    Raises
    ------
    UsageError
        A value cannot be written: it holds a line break, or both kinds of quotes.
    """
    parts: list[str] = []
    for block in star.blocks:
        wrong = [name for name in block.columns if not TOKEN.fullmatch(name)]
        if wrong or (block.name and not TOKEN.fullmatch(block.name)):
            raise UsageError(f"{star.path}: names {[block.name, *wrong]}; allowed: text without spaces or line breaks")
        parts.append("\n")
        if block.preamble:
            parts += [f"{line}\n" for line in block.preamble] + ["\n"]
        parts.append(f"data_{block.name}\n\n")
        if block.is_loop and block.columns:
            parts.append("loop_ \n")
            for index, name in enumerate(block.columns, start=1):
                note = f"{block.notes[name]} " if name in block.notes else ""
                parts.append(f"_{name} #{index} {note}\n")
            for row in block.rows:
                parts.append(_format_row(row, star.path, block) + " \n")
        else:
            width = max((len(name) for name in block.columns), default=0) + 2
            for name, value in zip(block.columns, _single_row(block), strict=True):
                note = f" {block.notes[name]}" if name in block.notes else ""
                parts.append(f"_{name:<{width}} {_quote(value, star.path):>12}{note}\n")
        parts.append(" \n")
    return "".join(parts) + "".join(f"{line}\n" for line in star.epilogue)


def _format_row(row: Iterable[str], path: Path, block: StarBlock) -> str:
    tokens = [_quote(value, path, first=index == 0).rjust(12) for index, value in enumerate(row)]
    if len(tokens) != len(block.columns):
        raise UsageError(
            f"{path}: block {block.name!r}: {len(tokens)} values for {len(block.columns)} columns in a row"
        )
    return " ".join(tokens)


def _single_row(block: StarBlock) -> list[str]:
    if len(block.rows) > 1 or (block.columns and not block.rows):
        raise UsageError(f"block {block.name!r} is a list and has {len(block.rows)} rows; allowed: one")
    return block.rows[0] if block.rows else []


def _quote(value: str, path: Path, *, first: bool = False) -> str:
    if "\n" in value or "\0" in value:
        raise UsageError(f"{path}: the value {value!r} holds a line break or NUL; STAR has one line per row; rename it")
    starts_oddly = value[:1] in ("", "'", '"', "#")
    # Only at the start of a line can a value be taken for a name, a keyword or a text of several lines.
    line_starts_oddly = first and (value[:1] in "_;" or value.lower().startswith(_RESERVED))
    if not (starts_oddly or line_starts_oddly or any(space in value for space in SPACE)):
        return value
    for mark in ('"', "'"):
        if mark not in value:
            return f"{mark}{value}{mark}"
    raise UsageError(f"{path}: the value {value!r} holds spaces and both kinds of quotes; rename it")
