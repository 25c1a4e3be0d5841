"""Read the text of STAR files strictly, token by token.

Every message names the line. A lenient reader pads a short row, and its columns shift unnoticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from cryoplug.errors import FormatError
from cryoplug.formats.star_text import SPACE, TOKEN, StarBlock, StarFile

MAX_COLUMNS = 1000
"""Most columns of a block; RELION knows some 400 names, and a hostile file with more would take hours."""
MAX_BLOCKS = 20_000
"""Most blocks of a file; a tilt series has one block, and the largest projects have some thousand."""
MAX_FILLER_LINES = 100_000
"""Most comment or empty lines in a row."""
# A quote ends a token only before white space, so that an apostrophe within a name stays what it is (the CIF rule).
_QUOTED = {mark: re.compile(rf"{mark}(.*?){mark}(?=[{SPACE}]|$)") for mark in "'\""}
_NUMBER = re.compile(r"#\d+(?![^\s\[])\s*")


def parse_star(text: str, path: Path) -> StarFile:
    """Read the text of a STAR file; `path` is for messages. Raises what `read_star` raises."""
    # Only these newlines: str.splitlines would also cut at form feeds and at Unicode separators within a name.
    return parse_lines(text.replace("\r\n", "\n").split("\n"), path)


def parse_lines(lines: Iterable[str], path: Path) -> StarFile:
    """Read lines without line ends, one at a time; the last line is empty if the text ends with a newline."""
    parser = _Parser(path)
    ends = ["", ""]
    for number, line in enumerate(lines, start=1):
        line = line.removeprefix("\ufeff") if number == 1 else line
        ends = [ends[1], line]
        parser.take(number, line.strip(SPACE))
    parser.refuse_cut_value(ends)
    return parser.finish()


class _Parser:
    """Takes one stripped line after another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blocks: dict[str, StarBlock] = {}
        self.block: StarBlock | None = None
        self.comments: list[str] = []
        self.in_loop = False
        self.note = ""
        self.number = self.filler_lines = 0

    def take(self, number: int, line: str) -> None:
        self.number = number
        if not line or line.startswith("#"):
            self._take_filler(number, line)
            return
        self.filler_lines = 0
        lowered = line.lower()
        in_rows = self.in_loop and self.block is not None and bool(self.block.columns)
        # A first value may look like a keyword (data_001.mrc); a keyword stands alone in its line.
        if lowered.startswith("data_") and not (in_rows and len(self._tokens(number, line)) > 1):
            self._start_block(number, line)
        elif self.block is None:
            raise self._error(number, f"text before the first data_ block: {line[:40]!r}; is this a STAR file?")
        elif lowered.split("#")[0].strip(SPACE) == "loop_":
            self._start_loop(number)
            self.comments += [line[line.index("#") :]] if "#" in line else []
        elif line.startswith(";"):
            raise self._error(number, "a text of several lines (;) is not supported; RELION does not write it")
        elif line.startswith("_") and not (self.in_loop and self.block.rows):
            self._take_name(number, line)
        else:
            self._take_row(number, line)

    def _take_filler(self, number: int, line: str) -> None:
        self.filler_lines += 1
        if self.filler_lines > MAX_FILLER_LINES:
            raise self._error(number, f"more than {MAX_FILLER_LINES} lines without a value; check the file")
        if line:
            self.comments.append(line)

    def finish(self) -> StarFile:
        if not self.blocks:
            raise FormatError(f"{self.path}: no data_ block; a STAR file has at least one; check the file")
        blocks = [block if block.columns else replace(block, is_loop=False) for block in self.blocks.values()]
        return StarFile(blocks, self.path, self.comments)

    def refuse_cut_value(self, lines: list[str]) -> None:
        # RELION ends every line of a table with a space: a last line without one, and without a line end, was cut
        # within its last value, which nothing else would show.
        if not self.in_loop or len(lines) < 2:
            return
        before, last = lines[-2], lines[-1]
        if before.strip(SPACE) and before[-1] in SPACE and last.strip(SPACE) and last[-1] not in SPACE:
            raise self._error(
                self.number, f"the file ends within this line: {last[-40:]!r}; copy it again, or complete the line"
            )

    def _start_block(self, number: int, line: str) -> None:
        tokens = self._tokens(number, line)
        self._keep_note()
        name = tokens[0][len("data_") :]
        if len(tokens) > 1:
            raise self._error(number, f"text after the name of block data_{name}: {tokens[1]!r}; use a new line")
        if name in self.blocks:
            raise self._error(number, f"block data_{name} is there twice; a name may stand once; rename or remove one")
        if len(self.blocks) == MAX_BLOCKS:
            raise self._error(number, f"more than {MAX_BLOCKS} blocks; split the file")
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
        if len(block.columns) == MAX_COLUMNS:
            raise self._error(number, f"block data_{block.name} has more than {MAX_COLUMNS} columns; check the file")
        note = _NUMBER.sub("", self.note, count=1) if self.in_loop and _NUMBER.match(self.note) else self.note
        if note:
            block.notes[name] = note
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
        self._keep_note()
        block.rows.append(tokens)

    def _keep_note(self) -> None:
        # A comment behind a row goes below the table: there is no other place for it.
        if self.note:
            self.comments.append(self.note)

    def _tokens(self, number: int, line: str) -> list[str]:
        self.note = ""
        if '"' not in line and "'" not in line and "#" not in line:
            return TOKEN.findall(line)
        tokens = []
        at = 0
        while at < len(line):
            if line[at] in SPACE:
                at += 1
                continue
            if line[at] == "#":
                self.note = line[at:]
                break
            match = _QUOTED.get(line[at], TOKEN).match(line, at)
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
        # Names in it may be a megabyte long.
        shown = message if len(message) <= 1000 else f"{message[:600]} ... {message[-300:]}"
        return FormatError(f"{self.path}: line {number}: {shown}")
