"""Datasets of cryoSPARC (``.cs``): read which images they list, without executing anything in the file.

A ``.cs`` file is a numpy array of records in the NPY format (numpy.lib.format). Its header is a Python literal. So before
anything parses it, only the few characters are allowed that a list of columns needs.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cryoplug.errors import FormatError, InputError, MissingInputError, StorageError

_MAGIC = b"\x93NUMPY"
_COMPRESSED_MAGIC = b"\x95CSDAT"
_NAMED_KINDS = {"either": "micrographs or movies"}
_MAX_HEADER_BYTES = 1 << 18
"""Longest header; a set of particles with all of cryoSPARC's columns has about 200 of them in 10 kB."""
_MAX_ROW_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 22
# Names, numbers and brackets: no operators, no calls, and no escapes within the names. Each number has one way to match:
# without the lookahead, a row of digits took minutes.
_HEADER = re.compile(r"(?:'[^'\\\n]*'|\d{1,19}(?!\d)L?|[\[\](){},: \n]|True|False)*")
_MAX_DEPTH = 6

_SOURCES = {
    "micrographs": (
        ("micrograph_blob/path", None, "micrograph_blob/psize_A"),
        ("micrograph_blob_non_dw/path", None, "micrograph_blob_non_dw/psize_A"),
        ("location/micrograph_path", None, "location/micrograph_psize_A"),
        ("blob/path", "blob/idx", "blob/psize_A"),
    ),
    "movies": (("movie_blob/path", None, "movie_blob/psize_A"),),
}
"""Columns for path, place in the stack (from 0) and pixel size; the first entry whose path column exists is used."""


@dataclass(frozen=True)
class CsImage:
    """An image that a dataset names."""

    name: str
    """Path in the dataset, without a leading ``>``; relative to the project folder."""
    section: int | None
    """Section of a stack from 1, as RELION counts; None for a file of one image."""
    pixel_size_angstrom: float | None
    """Pixel size that the dataset gives."""
    is_exported: bool
    """Whether the path began with ``>``: cryoSPARC exported it, and it is relative to the folder of the dataset."""
    row: int = field(default=0, compare=False)
    """Row of the dataset, from 0."""


def cs_images(path: Path, kind: str = "micrographs") -> list[CsImage]:
    """List the images of a cryoSPARC dataset, one per row.

    Parameters
    ----------
    path
        The ``.cs`` file.
    kind
        ``micrographs``: the micrographs; for a set of particles, those that they were picked on, else the particles as
        sections of their stacks. ``movies``: the movies. ``either``: micrographs if there are any, else movies.

    Raises
    ------
    MissingInputError
        There is no such file.
    FormatError
        It is not a dataset, it is damaged or empty, it holds Python objects, or it names no image of that kind.
    StorageError
        The system refused to read it.
    """
    sources = _SOURCES["micrographs"] + _SOURCES["movies"] if kind == "either" else _SOURCES[kind]
    try:
        with _opened(path) as stream:
            dtype, count, start = _read_header(stream, path)
            names = dtype.names or ()
            source = next((item for item in sources if item[0] in names), None)
            if source is None:
                wanted = ", ".join(item[0] for item in sources)
                groups = ", ".join(sorted({name.split("/")[0] for name in names}))
                raise FormatError(
                    f"{path}: names no {_NAMED_KINDS.get(kind, kind)} (columns: {wanted}; it has: {groups}); give another one"
                )
            if count == 0:
                raise FormatError(f"{path}: has no rows (0 of {len(names)} columns); give a dataset that lists images")
            wanted_columns = [name for name in source if name is not None and name in names]
            columns = _read_columns(stream, path, dtype, count, start, wanted_columns)
    except OSError as error:
        if isinstance(error, (InputError, StorageError)):
            raise
        raise StorageError(f"{path}: reading failed: {error.strerror or error}; check permissions and disk") from error
    return _images(path, source, columns)


def image_group(path: Path) -> str:
    """Give the group of columns from which `cs_images` takes the images: ``micrograph_blob``, ``blob``, ``location`` ..."""
    with _opened(path) as stream:
        names = _read_header(stream, path)[0].names or ()
    found = next((item[0] for item in _SOURCES["micrographs"] if item[0] in names), "micrograph_blob/path")
    return found.split("/")[0]


def dataset_layout(stream: BinaryIO, path: Path) -> tuple[np.dtype[Any], int, int]:
    """Give the type of a row, the number of rows, and the byte where the rows begin, in an opened dataset."""
    return _read_header(stream, path)


def _images(path: Path, source: tuple[str, str | None, str], columns: dict[str, np.ndarray[Any, Any]]) -> list[CsImage]:
    texts = [_text(value) for value in columns[source[0]].tolist()]
    empty = next((row for row, text in enumerate(texts) if not text.removeprefix(">") or "\0" in text), None)
    if empty is not None:
        raise FormatError(f"{path}: row {empty + 1} names no file in {source[0]} ({texts[empty]!r}); correct it")
    places = columns[source[1]].tolist() if source[1] in columns else [None] * len(texts)
    sizes = columns[source[2]].tolist() if source[2] in columns else [None] * len(texts)
    return [
        CsImage(text.removeprefix(">"), _section(path, place), _size(size), text.startswith(">"), row)
        for row, (text, place, size) in enumerate(zip(texts, places, sizes, strict=True))
    ]


def _text(value: object) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _section(path: Path, place: object) -> int | None:
    if place is None:
        return None
    if not isinstance(place, int) or place < 0:
        raise FormatError(f"{path}: the place {place!r} in a stack; allowed: whole numbers from 0")
    return place + 1


def _size(value: object) -> float | None:
    return value if isinstance(value, float) and 0 < value < float("inf") else None


def _opened(path: Path) -> BinaryIO:
    if not path.is_file():
        if path.exists():
            raise InputError(f"{path}: this is not a regular file; name a .cs file")
        raise MissingInputError(f"{path}: there is no such file; name a .cs file")
    return path.open("rb")


def _read_header(stream: BinaryIO, path: Path) -> tuple[np.dtype[Any], int, int]:
    """Give the type of a record, the number of records, and the byte where they begin."""
    size_bytes = os.fstat(stream.fileno()).st_size
    magic = stream.read(8)
    if magic.startswith(_COMPRESSED_MAGIC):
        raise FormatError(
            f"{path}: a compressed cryoSPARC dataset is not supported (supported: NPY); save it again with "
            "cryosparc.dataset: Dataset.load(file).save(file)"
        )
    if not magic.startswith(_MAGIC) or len(magic) < 8:
        raise FormatError(f"{path}: not a cryoSPARC dataset (it begins with {magic[:6]!r}, not {_MAGIC!r})")
    version = magic[6], magic[7]
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise FormatError(f"{path}: NPY version {version[0]}.{version[1]}; allowed: 1.0, 2.0, 3.0")
    width = 2 if version == (1, 0) else 4
    length = int.from_bytes(stream.read(width), "little")
    start = 8 + width + length
    if length > _MAX_HEADER_BYTES or start > size_bytes:
        limit = min(_MAX_HEADER_BYTES, max(0, size_bytes - 8 - width))
        raise FormatError(f"{path}: the header claims {length} bytes; allowed here: {limit}; copy the file again")
    dtype, count = _parse_header(stream.read(length).decode("latin-1" if width == 2 else "utf-8", "replace"), path)
    needed = start + count * dtype.itemsize
    if needed > size_bytes:
        raise FormatError(
            f"{path}: {count} rows of {dtype.itemsize} bytes need {needed} bytes, it has {size_bytes}; copy it again"
        )
    return dtype, count, start


def _parse_header(text: str, path: Path) -> tuple[np.dtype[Any], int]:
    depth = deepest = 0
    for sign in re.sub(r"'[^']*'", "", text):
        depth += (sign in "([{") - (sign in ")]}")
        deepest = max(deepest, depth)
    if not _HEADER.fullmatch(text.strip()) or depth != 0 or deepest > _MAX_DEPTH:
        raise FormatError(f"{path}: the header is damaged ({text[:40]!r}); copy the file again")
    try:
        header = ast.literal_eval(text.strip())
        dtype = np.lib.format.descr_to_dtype(header["descr"])
        shape = header["shape"]
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, OverflowError, MemoryError) as error:
        raise FormatError(f"{path}: the header is damaged ({error}); copy the file again") from error
    if dtype.hasobject:
        raise FormatError(f"{path}: holds Python objects, which are never loaded; save it with fixed-size columns")
    if dtype.names is None or dtype.itemsize == 0:
        raise FormatError(f"{path}: an array without named columns; a cryoSPARC dataset has them; check the file")
    if dtype.itemsize > _MAX_ROW_BYTES:
        raise FormatError(f"{path}: rows of {dtype.itemsize} bytes; allowed: up to {_MAX_ROW_BYTES}; check the file")
    if not (isinstance(shape, tuple) and len(shape) == 1 and type(shape[0]) is int):
        raise FormatError(f"{path}: an array of shape {shape!r}; a cryoSPARC dataset has one axis; check the file")
    return dtype, shape[0]


def _read_columns(
    stream: BinaryIO, path: Path, dtype: np.dtype[Any], count: int, start: int, names: Sequence[str]
) -> dict[str, np.ndarray[Any, Any]]:
    columns = {name: np.empty(count, dtype[name].base) for name in names if not dtype[name].shape}
    if len(columns) < len(names):
        raise FormatError(f"{path}: {', '.join(names)}: one value a row is allowed; check the file")
    # In chunks: a set of ten million particles has gigabytes, of which two columns are wanted.
    rows = max(1, _CHUNK_BYTES // dtype.itemsize)
    stream.seek(start)
    for first in range(0, count, rows):
        wanted = min(rows, count - first)
        payload = stream.read(wanted * dtype.itemsize)
        if len(payload) < wanted * dtype.itemsize:
            raise FormatError(f"{path}: became shorter while it was read; wait until it is written")
        chunk = np.frombuffer(payload, dtype)
        for name, column in columns.items():
            column[first : first + wanted] = chunk[name]
        # Looked at in every chunk: a sparse file may have a thousand million rows of nothing.
        if chunk[names[0]].dtype.kind in "SU" and not np.char.str_len(chunk[names[0]]).all():
            row = first + int(np.flatnonzero(np.char.str_len(chunk[names[0]]) == 0)[0])
            raise FormatError(f"{path}: row {row + 1} names no file in {names[0]} (''); correct it")
    return columns
