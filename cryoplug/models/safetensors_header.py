"""The header of a safetensors file, checked against the size of the file before any weight is read.

Layout: eight bytes with the length of the header (little-endian), the header as JSON, then the tensors without gaps.
Source: https://github.com/huggingface/safetensors#format. The library reads the file again afterwards. It would accept two
entries of one name (and keep the last), and headers of 100 MB; both are refused here.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryoplug.disk.checked_input import parse_json, shown

MAX_HEADER_BYTES = 1 << 20
"""Longest header; that of a network with 5000 tensors is half as long."""
_PREFIX_BYTES = 8

_MAX_AXES = 8
_ITEM_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2}
_ITEM_BYTES |= {"I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8}


@dataclass(frozen=True)
class TensorEntry:
    """The entry of one tensor in the header."""

    dtype: str
    """Type in safetensors' spelling, such as ``F32``."""
    shape: tuple[int, ...]
    """Shape of the tensor."""
    start: int
    """First byte, counted from the end of the header."""
    stop: int
    """Byte after the last one."""


def read_tensor_header(path: Path, max_bytes: int) -> tuple[int, dict[str, TensorEntry]]:
    """Give the size of a file and the entries of its header.

    Parameters
    ----------
    path
        The file.
    max_bytes
        A longer one is refused.

    Raises
    ------
    ValueError
        The message says what is wrong: not a regular file, too long, or an error of `parse_tensor_header`.
    """
    if not path.is_file():
        raise ValueError("it is a folder, device or pipe (allowed: a regular file)")
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > max_bytes:
            raise ValueError(f"{size} bytes (allowed: {max_bytes})")
        length = _header_length(stream.read(_PREFIX_BYTES), size)
        return size, parse_tensor_header(stream.read(length), size - _PREFIX_BYTES - length)


def parse_tensor_header(header: bytes, data_bytes: int) -> dict[str, TensorEntry]:
    """Read the header; `data_bytes` follow it in the file.

    Raises
    ------
    ValueError
        It is not such a header, or the tensors do not fill the data exactly, each once, without gap or overlap.
    """
    record = parse_json(header)
    if not isinstance(record, dict):
        raise ValueError(f"the header is {shown(record)} (allowed: an object)")
    record.pop("__metadata__", None)
    entries = {name: _entry(name, value) for name, value in record.items()}
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != at:
            kind = "overlaps the one before" if entry.start < at else "leaves a gap"
            raise ValueError(f"{shown(name)} begins at byte {shown(entry.start)} (allowed: {at}): it {kind}")
        at = entry.stop
    if at != data_bytes:
        raise ValueError(f"the tensors end at byte {shown(at)} but the file holds {data_bytes} bytes of them")
    return entries


def _header_length(prefix: bytes, size_bytes: int) -> int:
    if len(prefix) < _PREFIX_BYTES:
        raise ValueError(f"{size_bytes} bytes (allowed: {_PREFIX_BYTES} and a header)")
    if prefix.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        raise ValueError("a pickle or an archive of torch.save, which can run code and is never loaded")
    length, limit = int.from_bytes(prefix, "little"), min(MAX_HEADER_BYTES, size_bytes - _PREFIX_BYTES)
    if length > limit:
        raise ValueError(f"the header claims {length} bytes (allowed here: {limit})")
    return length


def _entry(name: str, value: Any) -> TensorEntry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{shown(name)} is {shown(value)} (allowed: dtype, shape and data_offsets)")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise ValueError(f"{shown(name)} has the type {shown(dtype)} (allowed: {', '.join(_ITEM_BYTES)})")
    if not (_whole_numbers(shape) and len(shape) <= _MAX_AXES):
        raise ValueError(f"{shown(name)} has the shape {shown(shape)} (allowed: up to {_MAX_AXES} whole numbers)")
    if not (_whole_numbers(offsets) and len(offsets) == 2):
        raise ValueError(f"{shown(name)} has the data_offsets {shown(offsets)} (allowed: two whole numbers)")
    needed = math.prod(shape) * _ITEM_BYTES[dtype]
    if offsets[1] - offsets[0] != needed:
        raise ValueError(
            f"{shown(name)} of shape {shown(shape)} {dtype} needs {shown(needed)} bytes, not {shown(offsets)}"
        )
    return TensorEntry(dtype, tuple(shape), offsets[0], offsets[1])


def _whole_numbers(value: Any) -> bool:
    # 2^63 and above would overflow in every other reader.
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)
