"""Reading files that others may have written: limits on the length of a file and on the depth of JSON.

The length of a file says nothing about the memory that it takes: ``[],[],[],`` in JSON takes 24 times its bytes.
"""

from __future__ import annotations

import errno
import json
import math
import os
import reprlib
import stat
from pathlib import Path
from typing import Any, NoReturn

from cryoplug.errors import FormatError, MissingInputError, StorageError

MAX_DEPTH = 16
"""Deepest nesting of JSON that is accepted; cryoplug itself writes at most 6 levels."""

_BLOCK_BYTES = 512
"""Unit of ``st_blocks``, whatever the block size of the disk."""

_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxlong, _repr.maxother, _repr.maxlist, _repr.maxdict = 2, 80, 40, 80, 4, 4


def read_limited(path: Path, limit_bytes: int) -> bytes:
    """Read a whole regular file of at most `limit_bytes` bytes; a pipe or a device is refused, not waited for.

    Raises
    ------
    MissingInputError
        There is no such file.
    FormatError
        It is not a regular file, or it is too long.
    StorageError
        The system refused to read it.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: there is no such file; check the name") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FormatError(f"{path}: a link that leads to itself; correct or remove it") from error
        raise StorageError(f"{path}: reading failed: {error.strerror}; check permissions and disk") from error
    with open(descriptor, "rb", buffering=0) as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{path}: a folder, device or pipe; allowed: a regular file; restore it")
        if status.st_size > limit_bytes:
            raise FormatError(f"{path}: {status.st_size} bytes; allowed: up to {limit_bytes}; restore it")
        parts, left = [], limit_bytes + 1
        try:
            # Files of /proc say that they are empty: what comes is counted, not what is promised.
            while left and (part := stream.read(min(left, 1 << 20))):
                parts.append(part)
                left -= len(part)
        except OSError as error:
            raise StorageError(f"{path}: reading failed: {error.strerror}; check permissions and disk") from error
    if not left:
        raise FormatError(f"{path}: more than {limit_bytes} bytes; allowed: up to {limit_bytes}; restore it")
    return b"".join(parts)


def parse_json(payload: str | bytes) -> Any:
    """Parse JSON strictly: no NaN, no infinity (``1e999`` either), no key twice, at most `MAX_DEPTH` levels.

    Raises
    ------
    ValueError
        The message says what is wrong.
    """
    try:
        value = json.loads(
            payload, parse_constant=_refuse_constant, parse_float=_finite_float, object_pairs_hook=_unique_keys
        )
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        # Tables of numbers are the bulk of a manifest: only what can nest is followed.
        level = [inner for outer in level for inner in _values(outer) if isinstance(inner, (list, dict))]
        if not level:
            return value
    raise ValueError(f"nested more than {MAX_DEPTH} levels deep")


def shown(value: object) -> str:
    """Give a short text for a value in a message, however long or deep the value is."""
    text = _repr.repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def allocated_bytes(path: Path) -> int:
    """Return how many bytes of a file are really on the disk: a sparse file can claim any size for nothing."""
    status = path.stat()
    return min(status.st_size, status.st_blocks * _BLOCK_BYTES)


def _values(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)} is there twice")
    return found
