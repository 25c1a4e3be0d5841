"""STAR files of RELION: read strictly, token by token as text, and written in RELION's own layout.

Nothing is turned into a number and back: what is not changed on purpose is written as it was read. Line numbers are in
every message, because a short row that a lenient reader pads shifts columns without a word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryoplug.core.atomic import write_text
from cryoplug.errors import FormatError, InputError, MissingInputError, StorageError, UsageError

MAX_BYTES = 1 << 30
"""A STAR file of ten million particles is about this long."""

_SPACE = " \t\r\x0b\x0c"
_TOKEN = re.compile(rf"[^{_SPACE}\n]+")
# A quote ends a token only before white space, so that an apostrophe within a name stays what it is (the CIF rule).
_QUOTED = {mark: re.compile(rf"{mark}(.*?){mark}(?=[{_SPACE}]|$)") for mark in "'\""}
_RESERVED = ("data_", "loop_", "save_", "stop_", "global_")


@dataclass(frozen=True)
class StarBlock:
    """One ``data_`` block: a table (``loop_``) or a list of names with one value each."""

    name: str
    """What follows ``data_``; may be empty."""
    is_loop: bool
    """Whether it is a table; a list has exactly one row, or none when it is empty."""
    columns: list[str] = field(default_factory=list)
    """Names without the leading underscore, in file order, each once."""
    rows: list[list[str]] = field(default_factory=list)
    """Values as text without quotes; every row as long as `columns`."""
    preamble: list[str] = field(default_factory=list)
    """Comment lines before the block with their ``#``: ``# version 30001``."""

    def column(self, name: str) -> list[str]:
        """Give the values of a column, one per row.

        Raises
        ------
        FormatError
            There is no such column; the message lists those that are there.
        """
        if name not in self.columns:
            raise FormatError(f"block {self.name!r} has no column {name}; it has: {', '.join(self.columns) or 'none'}")
        index = self.columns.index(name)
        return [row[index] for row in self.rows]

    def with_column(self, name: str, values: Sequence[str]) -> StarBlock:
        """Give a copy in which a column has new values; a new column goes to the end.

        Parameters
        ----------
        name
            Without the underscore.
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
    """In file order; no two of one name."""
    path: Path
    """Where it was read from, or where it belongs."""
    epilogue: list[str] = field(default_factory=list)
    """Comment lines after the last block."""

    def block(self, name: str) -> StarBlock | None:
        """Give the block of that name, if there is one."""
        return next((block for block in self.blocks if block.name == name), None)

    def with_block(self, block: StarBlock) -> StarFile:
        """Give a copy in which `block` stands for the block of its name; a new one goes to the end."""
        if self.block(block.name) is None:
            return replace(self, blocks=[*self.blocks, block])
        return replace(self, blocks=[block if old.name == block.name else old for old in self.blocks])


def read_star(path: str | Path) -> StarFile:
    """Read a STAR file.

    Bytes that are not UTF-8 survive a round trip (``surrogateescape``).

    Raises
    ------
    MissingInputError
        There is no such file.
    FormatError
        With the line: a short or long row, a column or block twice, a quote that never ends, text outside of a block.
    """
    path = Path(path)
    try:
        if not path.is_file():
            found = "this is no regular file" if path.exists() else "there is no such file"
            error_class = InputError if path.exists() else MissingInputError
            raise error_class(f"{path}: {found}; name a STAR file")
        size_bytes = path.stat().st_size
        if size_bytes > MAX_BYTES:
            raise FormatError(f"{path}: {size_bytes} bytes; allowed for a STAR file: {MAX_BYTES}; split it")
        payload = path.read_bytes()
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise StorageError(f"{path}: reading failed: {error.strerror or error}; check permissions and disk") from error
    except ValueError as error:
        raise MissingInputError(f"{str(path)!r}: this cannot be a file name ({error}); correct it") from error
    if b"\0" in payload:
        raise FormatError(f"{path}: this is a binary file, not a STAR file; check the name")
    return parse_star(payload.decode("utf-8", "surrogateescape"), path)


def parse_star(text: str, path: Path) -> StarFile:
    """Read the text of a STAR file; `path` is for messages. Raises what `read_star` raises."""
    parser = _Parser(path)
    # Only these newlines: str.splitlines would also cut at form feeds and at Unicode separators within a name.
    for number, line in enumerate(text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n"), start=1):
        parser.take(number, line.strip(_SPACE))
    return parser.finish()


def format_star(star: StarFile) -> str:
    """Give the text of a STAR file in RELION's layout; reading it gives the same blocks, columns and values.

    Raises
    ------
    UsageError
        A value cannot be written: it holds a line break, or both kinds of quotes.
    """
    parts: list[str] = []
    for block in star.blocks:
        wrong = [name for name in block.columns if not _TOKEN.fullmatch(name)]
        if wrong or (block.name and not _TOKEN.fullmatch(block.name)):
            raise UsageError(f"{star.path}: names {[block.name, *wrong]}; allowed: text without spaces or line breaks")
        parts.append("\n")
        if block.preamble:
            parts += [f"{line}\n" for line in block.preamble] + ["\n"]
        parts.append(f"data_{block.name}\n\n")
        if block.is_loop:
            parts.append("loop_ \n")
            parts += [f"_{name} #{index} \n" for index, name in enumerate(block.columns, start=1)]
            for row in block.rows:
                parts.append(_format_row(row, star.path, block) + " \n")
        else:
            width = max((len(name) for name in block.columns), default=0) + 2
            for name, value in zip(block.columns, _single_row(block), strict=True):
                parts.append(f"_{name:<{width}} {_quote(value, star.path):>12}\n")
        parts.append(" \n")
    return "".join(parts) + "".join(f"{line}\n" for line in star.epilogue)


def write_star(path: str | Path, star: StarFile) -> None:
    """Write a STAR file atomically; see `format_star`."""
    write_text(Path(path), format_star(star))


def micrograph_table(star: StarFile) -> StarBlock:
    """Give the table that lists micrographs: block ``micrographs``, else the first table with ``rlnMicrographName``.

    Raises
    ------
    FormatError
        There is none; the message lists the blocks.
    """
    named = star.block("micrographs")
    candidates = [named] if named is not None else [block for block in star.blocks if block.is_loop]
    for block in candidates:
        if "rlnMicrographName" in block.columns:
            return block
    blocks = ", ".join(f"data_{block.name}" for block in star.blocks)
    raise FormatError(f"{star.path}: no table with the column rlnMicrographName (blocks: {blocks}); give another STAR")


def pixel_sizes(star: StarFile) -> list[float | None]:
    """Give the pixel size in angstrom of each row of `micrograph_table`.

    RELION 3.1 and later keep it in the optics group of the row (``rlnMicrographPixelSize``, or the original one of the
    movie); 3.0 has ``rlnDetectorPixelSize`` in micrometres and ``rlnMagnification`` in the row.

    Returns
    -------
    list[float | None]
        None where nothing is said, or no positive number.
    """
    table = micrograph_table(star)
    by_group = _optics_pixel_sizes(star)
    index = {name: position for position, name in enumerate(table.columns)}

    def one(row: list[str]) -> float | None:
        def number(name: str) -> float | None:
            return _positive(row[index[name]]) if name in index else None

        if "rlnOpticsGroup" in index and row[index["rlnOpticsGroup"]] in by_group:
            return by_group[row[index["rlnOpticsGroup"]]]
        own = number("rlnMicrographPixelSize") or number("rlnMicrographOriginalPixelSize")
        detector, magnification = number("rlnDetectorPixelSize"), number("rlnMagnification")
        if own is None and detector is not None and magnification is not None:
            return detector * 1e4 / magnification
        return own

    return [one(row) for row in table.rows]


def _optics_pixel_sizes(star: StarFile) -> dict[str, float | None]:
    optics = star.block("optics")
    if optics is None or "rlnOpticsGroup" not in optics.columns:
        return {}
    sizes: dict[str, float | None] = {}
    for row in optics.rows:
        values = dict(zip(optics.columns, row, strict=True))
        size = _positive(values.get("rlnMicrographPixelSize", ""))
        sizes[values["rlnOpticsGroup"]] = size or _positive(values.get("rlnMicrographOriginalPixelSize", ""))
    return sizes


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


class _Parser:
    """Takes one stripped line after another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blocks: dict[str, StarBlock] = {}
        self.block: StarBlock | None = None
        self.comments: list[str] = []
        self.in_loop = False

    def take(self, number: int, line: str) -> None:
        if not line:
            return
        if line.startswith("#"):
            self.comments.append(line)
            return
        lowered = line.lower()
        in_rows = self.in_loop and self.block is not None and bool(self.block.columns)
        # A first value may look like a keyword (data_001.mrc); a keyword stands alone in its line.
        if lowered.startswith("data_") and not (in_rows and len(self._tokens(number, line)) > 1):
            self._start_block(number, line)
        elif self.block is None:
            raise self._error(number, f"text before the first data_ block: {line[:40]!r}; is this a STAR file?")
        elif lowered.split("#")[0].strip(_SPACE) == "loop_":
            self._start_loop(number)
        elif line.startswith(";"):
            raise self._error(number, "a text of several lines (;) is not supported; RELION does not write it")
        elif line.startswith("_") and not (self.in_loop and self.block.rows):
            self._take_name(number, line)
        else:
            self._take_row(number, line)

    def finish(self) -> StarFile:
        if not self.blocks:
            raise FormatError(f"{self.path}: no data_ block; a STAR file has at least one; check the file")
        return StarFile(list(self.blocks.values()), self.path, self.comments)

    def _start_block(self, number: int, line: str) -> None:
        tokens = self._tokens(number, line)
        name = tokens[0][len("data_") :]
        if len(tokens) > 1:
            raise self._error(number, f"text after the name of block data_{name}: {tokens[1]!r}; use a new line")
        if name in self.blocks:
            raise self._error(number, f"block data_{name} is there twice; a name may stand once; rename or remove one")
        self.block = self.blocks[name] = StarBlock(name, False, preamble=self.comments)
        self.comments, self.in_loop = [], False

    def _start_loop(self, number: int) -> None:
        block = self._current(number)
        if block.columns or block.is_loop:
            raise self._error(
                number, f"a second table in block data_{block.name}; one per block; give it its own block"
            )
        self.block = self.blocks[block.name] = replace(block, is_loop=True)
        self.in_loop = True

    def _take_name(self, number: int, line: str) -> None:
        block = self._current(number)
        tokens = self._tokens(number, line)
        name = tokens[0][1:]
        if not name or name in block.columns:
            problem = f"column _{name} is there twice" if name else "a column without a name"
            raise self._error(number, f"{problem} in block data_{block.name}; each name once; rename or remove one")
        wanted = 1 if self.in_loop else 2
        if len(tokens) != wanted:
            what = "no value" if wanted == 1 else "exactly one value"
            raise self._error(number, f"_{name} has {len(tokens) - 1} values; {what} may follow the name here")
        block.columns.append(name)
        if not self.in_loop:
            block.rows[:] = [[*(block.rows[0] if block.rows else []), tokens[1]]]

    def _take_row(self, number: int, line: str) -> None:
        block = self._current(number)
        tokens = self._tokens(number, line)
        if not self.in_loop or len(tokens) != len(block.columns):
            allowed = f"{len(block.columns)} (one per column)" if self.in_loop else "a name that begins with _"
            raise self._error(
                number,
                f"{len(tokens)} values in block data_{block.name}; allowed: {allowed}; quote values with spaces, "
                "complete or remove the line",
            )
        block.rows.append(tokens)

    def _tokens(self, number: int, line: str) -> list[str]:
        if '"' not in line and "'" not in line and "#" not in line:
            return _TOKEN.findall(line)
        tokens = []
        at = 0
        while at < len(line):
            if line[at] in _SPACE:
                at += 1
                continue
            if line[at] == "#":
                break
            match = _QUOTED.get(line[at], _TOKEN).match(line, at)
            if match is None:
                raise self._error(number, f"a quote that never ends: {line[at : at + 40]!r}; close it before a space")
            tokens.append(match[1] if match.re.groups else match[0])
            at = match.end()
        return tokens

    def _current(self, number: int) -> StarBlock:
        if self.block is None:
            raise self._error(number, "text before the first data_ block; is this a STAR file?")
        return self.block

    def _error(self, number: int, message: str) -> FormatError:
        return FormatError(f"{self.path}: line {number}: {message}")


def _format_row(row: Iterable[str], path: Path, block: StarBlock) -> str:
    tokens = [_quote(value, path, first=index == 0).rjust(12) for index, value in enumerate(row)]
    if len(tokens) != len(block.columns):
        raise UsageError(
            f"{path}: a row of {len(tokens)} values in block {block.name!r} of {len(block.columns)} columns"
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
    if not (starts_oddly or line_starts_oddly or any(space in value for space in _SPACE)):
        return value
    for mark in ('"', "'"):
        if mark not in value:
            return f"{mark}{value}{mark}"
    raise UsageError(f"{path}: the value {value!r} holds spaces and both kinds of quotes; rename it")
