"""Read and write STAR files of RELION, and find the table that lists images.

RELION 3.0 has one table (``data_`` or ``data_images``) with the optics in every row; 3.1 and later have ``data_optics``
beside ``data_micrographs``, ``data_movies`` or ``data_particles``. `cryoplug.formats.star_parser` reads the text itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cryoplug.disk.atomic import write_text
from cryoplug.errors import FormatError, InputError, MissingInputError, StorageError
from cryoplug.formats.star_parser import parse_lines, parse_star
from cryoplug.formats.star_text import StarBlock, StarFile, format_star

__all__ = [
    "IMAGE_COLUMNS",
    "ImageTable",
    "StarBlock",
    "StarFile",
    "format_star",
    "image_table",
    "parse_star",
    "read_star",
    "write_star",
]

MAX_BYTES = 1 << 30
"""Largest STAR file in bytes; one of ten million particles is about this long."""
MAX_LINE_BYTES = 1 << 20
"""Longest line in bytes; a row of a thousand columns has some 20 kB."""
_SNIFFED_BYTES = 1 << 16
_SHOWN_BLOCKS, _SHOWN_LETTERS = 20, 100
MICROGRAPH_COLUMN = "rlnMicrographName"
MOVIE_COLUMN = "rlnMicrographMovieName"
IMAGE_COLUMN = "rlnImageName"
IMAGE_COLUMNS = (MICROGRAPH_COLUMN, MOVIE_COLUMN, IMAGE_COLUMN)
"""Columns that name the images of a table, in the order of the search."""
_USUAL_NAMES = {MICROGRAPH_COLUMN: "micrographs", MOVIE_COLUMN: "movies", IMAGE_COLUMN: "particles"}
_TILT_SERIES_COLUMN = "rlnTomoTiltSeriesStarFile"
_TILT_SERIES_SIZE = "rlnTomoTiltSeriesPixelSize"
_TILT_COLUMNS = ("rlnTomoNominalStageTiltAngle", "rlnTomoTiltMovieIndex", "rlnTomoYTilt")


@dataclass(frozen=True)
class ImageTable:
    """The table of a STAR file that lists the requested images."""

    block: StarBlock
    """The table."""
    column: str
    """The column with the names of the images."""
    pixel_sizes: list[float | None]
    """Pixel size of the image of each row in angstrom; None if the file gives no reliable value."""

    @property
    def names(self) -> list[str]:
        """Names as in the file, one per row: ``path`` or ``000012@path``."""
        return self.block.column(self.column)


def read_star(path: str | Path) -> StarFile:
    """Read a STAR file.

    Bytes that are not UTF-8 survive a round trip (``surrogateescape``).

    Raises
    ------
    MissingInputError
        There is no such file.
    FormatError
        A short or long row, a column or block twice, a quote that never ends, or text outside a block; the message names the
        line.
    """
    path = Path(path)
    try:
        if not path.is_file():
            found = "this is not a regular file" if path.exists() else "there is no such file"
            error_class = InputError if path.exists() else MissingInputError
            raise error_class(f"{path}: {found}; name a STAR file")
        size_bytes = path.stat().st_size
        if size_bytes > MAX_BYTES:
            raise FormatError(f"{path}: {size_bytes} bytes; allowed for a STAR file: {MAX_BYTES}; split it")
        with path.open("rb") as stream:
            if b"\0" in stream.read(_SNIFFED_BYTES):
                raise FormatError(f"{path}: this is a binary file, not a STAR file; check the name")
            stream.seek(0)
            return parse_lines(_lines(stream, path), path)
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise StorageError(f"{path}: reading failed: {error.strerror or error}; check permissions and disk") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise MissingInputError(f"{str(path)!r}: this cannot be a file name ({error}); correct it") from error


def _lines(stream: BinaryIO, path: Path) -> Iterator[str]:
    # Line by line: what is no STAR file is refused at its first wrong line, however long it is.
    line = b"\n"
    for number in itertools.count(1):
        ended = line.endswith(b"\n")
        line = stream.readline(MAX_LINE_BYTES + 1)
        if not line:
            if ended:
                yield ""
            return
        if len(line) > MAX_LINE_BYTES:
            raise FormatError(
                f"{path}: line {number}: more than {MAX_LINE_BYTES} bytes; allowed: {MAX_LINE_BYTES}; check it"
            )
        if b"\0" in line:
            raise FormatError(f"{path}: line {number}: a NUL byte; this is a binary or damaged file; copy it again")
        yield line.removesuffix(b"\r\n" if line.endswith(b"\r\n") else b"\n").decode("utf-8", "surrogateescape")


def write_star(path: str | Path, star: StarFile) -> None:
    """Write a STAR file atomically; see `format_star`."""
    write_text(Path(path), format_star(star))


def image_table(star: StarFile, kind: str = "micrographs") -> ImageTable:
    """Give the table that lists the requested images.

    Parameters
    ----------
    star
        The file.
    kind
        ``micrographs``: the table with ``rlnMicrographName`` (for particles the micrographs that they were picked on),
        else the one with ``rlnImageName``, whose images are sections of stacks. ``movies``: the table with
        ``rlnMicrographMovieName``. ``either``: micrographs if there are any, else movies.

    Raises
    ------
    FormatError
        There is no such table; the message lists the blocks and what the file lists instead.
    """
    columns = {
        "micrographs": (MICROGRAPH_COLUMN, IMAGE_COLUMN),
        "movies": (MOVIE_COLUMN,),
        "either": (MICROGRAPH_COLUMN, IMAGE_COLUMN, MOVIE_COLUMN),
    }[kind]
    for column in columns:
        block = _table_with(star, column)
        if block is not None:
            _refuse_another_list(star, block, column)
            return ImageTable(block, column, _pixel_sizes(star, block, column))
    raise FormatError(f"{star.path}: {_what_is_missing(star, columns)}")


def tilt_series_stars(star: StarFile) -> dict[str, float | None]:
    """If a STAR file lists tilt series instead of images, give their STAR files, each with its pixel size if known."""
    if any(column in block.columns for block in star.blocks for column in IMAGE_COLUMNS):
        return {}
    block = next((block for block in star.blocks if _TILT_SERIES_COLUMN in block.columns), None)
    if block is None:
        return {}
    known = _TILT_SERIES_SIZE in block.columns
    sizes = block.column(_TILT_SERIES_SIZE) if known else [""] * len(block.rows)
    return {name: _positive(size) for name, size in zip(block.column(_TILT_SERIES_COLUMN), sizes, strict=True)}


def is_tilt_series(block: StarBlock) -> bool:
    """Tell whether a table lists the views of a tilt series, as in RELION's tomography."""
    return any(column in block.columns for column in _TILT_COLUMNS)


def _table_with(star: StarFile, column: str) -> StarBlock | None:
    usual = _USUAL_NAMES[column]
    # The table of that name first, then tables, then lists: a list of one movie is in RELION's own motion files.
    order = sorted(star.blocks, key=lambda block: (block.name != usual, not block.is_loop))
    return next((block for block in order if column in block.columns), None)


def _refuse_another_list(star: StarFile, table: StarBlock, column: str) -> None:
    """Refuse a file in which two tables list different images, because only their order would choose between them."""
    if table.name == _USUAL_NAMES[column] or not table.is_loop:
        return
    listed: set[str] | None = None
    for other in star.blocks:
        if other is table or not other.is_loop or column not in other.columns:
            continue
        listed = listed or set(table.column(column))
        if not listed.issuperset(other.column(column)):
            raise FormatError(
                f"{star.path}: data_{table.name} and data_{other.name} list different micrographs ({column}); keep one "
                "of them, or give each a STAR file of its own"
            )


def _what_is_missing(star: StarFile, columns: tuple[str, ...]) -> str:
    names = [f"data_{block.name[:_SHOWN_LETTERS]}" for block in star.blocks[:_SHOWN_BLOCKS]]
    blocks = ", ".join([*names, *(["..."] if len(star.blocks) > _SHOWN_BLOCKS else [])])
    wanted = f"no table with the column {' or '.join(columns)} (blocks: {blocks})"
    series = next((block for block in star.blocks if _TILT_SERIES_COLUMN in block.columns), None)
    if series is not None and series.rows:
        return f"{wanted}; it lists tilt series: give their STAR files, such as {series.column(_TILT_SERIES_COLUMN)[0]}"
    if MOVIE_COLUMN not in columns and _table_with(star, MOVIE_COLUMN) is not None:
        return f"{wanted}; it lists movies: make halves of them with convert --pairs halves, or give micrographs"
    if columns == (MOVIE_COLUMN,) and _table_with(star, MICROGRAPH_COLUMN) is not None:
        return f"{wanted}; it lists micrographs: give the STAR file of the movies"
    return f"{wanted}; give another STAR file"


def _pixel_sizes(star: StarFile, table: StarBlock, column: str) -> list[float | None]:
    index = {name: position for position, name in enumerate(table.columns)}
    in_group, in_row = _size_columns(table, column)
    by_group = _optics_pixel_sizes(star, in_group)
    group = index.get("rlnOpticsGroup")
    from_detector = _from_detector(table, column)
    if group is not None and by_group:
        unknown = next((row[group] for row in table.rows if _group(row[group]) not in by_group), None)
        if unknown is not None:
            raise FormatError(
                f"{star.path}: data_{table.name} names the optics group {unknown[:_SHOWN_LETTERS]}, which data_optics does not "
                f"have (it has {', '.join(list(by_group)[:_SHOWN_BLOCKS])}); RELION refuses that, too: correct it"
            )

    def one(row: list[str]) -> float | None:
        if group is not None and (of_group := by_group.get(_group(row[group]))):
            return of_group
        own = next((size for name in in_row if name in index and (size := _positive(row[index[name]]))), None)
        if own is None and from_detector:
            detector = _positive(row[index["rlnDetectorPixelSize"]])
            magnification = _positive(row[index["rlnMagnification"]])
            # Micrometres on the detector; RELION 3.0.
            return detector * 1e4 / magnification if detector and magnification else None
        return own

    return [one(row) for row in table.rows]


def _size_columns(table: StarBlock, column: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give the columns with the pixel size of the images of `column`: in the optics table, and in the rows."""
    if column == IMAGE_COLUMN:
        return ("rlnImagePixelSize",), ("rlnImagePixelSize", "rlnPixelSize")
    both = ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize")
    if column == MOVIE_COLUMN:
        return both[1:], both[1:]
    # Particles know their own sampling and that of the movie, but the micrograph between them may have been binned.
    return (both[:1], both[:1]) if IMAGE_COLUMN in table.columns else (both, both)


def _from_detector(table: StarBlock, column: str) -> bool:
    there = {"rlnDetectorPixelSize", "rlnMagnification"} <= set(table.columns)
    # In a table of particles these two describe the particle, which is often binned: 5 angstrom where its
    # micrograph has 15 in a table of real subtomograms.
    return there and (column == IMAGE_COLUMN or IMAGE_COLUMN not in table.columns)


def _optics_pixel_sizes(star: StarFile, columns: tuple[str, ...]) -> dict[str, float | None]:
    optics = star.block("optics")
    if optics is None or "rlnOpticsGroup" not in optics.columns:
        return {}
    sizes: dict[str, float | None] = {}
    for row in optics.rows:
        values = dict(zip(optics.columns, row, strict=True))
        sizes[_group(values["rlnOpticsGroup"])] = next(
            (size for name in columns if (size := _positive(values.get(name, "")))), None
        )
    return sizes


def _group(text: str) -> str:
    """Give an optics group as RELION reads it: ``1``, ``01`` and ``1.000000`` are the same group."""
    try:
        return str(int(float(text)))
    except (ValueError, OverflowError):
        return text


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
