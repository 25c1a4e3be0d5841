"""The MRC header: parse it leniently, examine it completely, and check it against the file size before any allocation.

A file of 1 KiB that claims 65536 x 65536 pixels made another reader allocate 16 GiB. So every product is a Python integer,
and every length is compared with the size of the file before it is used.
"""

from __future__ import annotations

import functools
import os
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from mrcfile.dtypes import HEADER_DTYPE

from cryoplug.core.micrograph import ImageF32
from cryoplug.core.results import Finding
from cryoplug.disk.opening import open_for_reading
from cryoplug.errors import FormatError
from cryoplug.formats.mrc_claims import geometry_findings, label_findings, pixel_size
from cryoplug.formats.mrc_imod import as_mode_101, has_two_values_in_a_byte, how_unsigned

HEADER_BYTES = 1024
MAX_EXTENDED_BYTES = 64 << 20
"""Largest extended header in bytes; an image has a record of about a kilobyte, and 65536 frames would need this."""
MAX_SIDE_PX = 1 << 17
"""Longest side in pixels that is read; the largest detectors have 16384, and a row must stay small against memory."""

SUPPORTED_MODES = {0: "int8", 1: "int16", 2: "float32", 6: "uint16", 12: "float16", 101: "4-bit integers"}
_REFUSED_MODES = {3: "complex int16: a transform", 4: "complex float32: a transform", 16: "RGB: a colour picture"}
_PIXEL_TYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2", 101: "u1"}
_MODE_BITS = {0: 8, 1: 16, 2: 32, 3: 32, 4: 64, 6: 16, 12: 16, 16: 24, 101: 4}
_TEXT_BYTES = frozenset(string.printable.encode("ascii"))

ByteOrder = Literal["<", ">"]
_ORDERS: tuple[ByteOrder, ByteOrder] = ("<", ">")
_STORED = {order: HEADER_DTYPE.newbyteorder(order) for order in _ORDERS}
_NATIVE = HEADER_DTYPE.newbyteorder("=")
_STAMPS: dict[bytes, ByteOrder] = {b"DD": "<", b"DA": "<", b"\x11\x11": ">"}


@dataclass(frozen=True)
class MrcHeader:
    """A header that cryoplug can use: a supported mode, and all pixels in the file."""

    path: Path
    """The file of the header."""
    record: np.void
    """All fields, of `mrcfile.dtypes.HEADER_DTYPE` in native byte order."""
    byte_order: ByteOrder
    """``<``: the file is little-endian; ``>``: big-endian."""
    mode: int
    """Number of the pixel type; a key of `SUPPORTED_MODES`."""
    nx: int
    """Columns."""
    ny: int
    """Rows."""
    nz: int
    """Number of sections; more than 1 in stacks, movies and volumes."""
    dtype: np.dtype
    """Type of a stored pixel with its byte order; mode 101 stores two pixels in a byte."""
    extended_header: bytes
    """The unchanged bytes between header and pixels."""
    data_offset: int
    """Offset in bytes of the first row."""
    size_bytes: int
    """Size of the whole file when it was opened."""
    pixel_size_angstrom: float | None
    """Pixel size ``cella.x / mx``; None if it is unset, infinite or negative."""
    warnings: tuple[str, ...]
    """Warnings: mistakes in the header that cryoplug accepts."""

    @property
    def row_size_bytes(self) -> int:
        """Bytes of one row; rows of mode 101 start at a whole byte."""
        return row_bytes(self.mode, self.nx)

    @property
    def section_size_bytes(self) -> int:
        """Bytes of one section."""
        return self.row_size_bytes * self.ny

    def unpack(self, raw: npt.NDArray[np.uint8], rows: int) -> ImageF32:
        """Turn the bytes of whole rows into pixels ``(rows, nx)`` in the grey values of the file."""
        stored = raw.view(self.dtype).reshape(rows, self.row_size_bytes // self.dtype.itemsize)
        if self.mode == 101:
            unpacked = np.empty((rows, stored.shape[1] * 2), np.float32)
            unpacked[:, 0::2] = stored & 0x0F
            unpacked[:, 1::2] = stored >> 4
            return np.ascontiguousarray(unpacked[:, : self.nx])
        return stored.astype(np.float32, order="C", copy=False)


@dataclass(frozen=True)
class Examination:
    """Everything that the first 1024 bytes and the file size tell."""

    record: np.void | None
    """The fields in native byte order, read-only; None if this is not an MRC header."""
    byte_order: ByteOrder
    """Byte order in which the fields were read."""
    unsigned_bytes: bool
    """Whether mode 0 holds 0 to 255, as IMOD wrote it before 2011."""
    findings: tuple[Finding, ...]
    """Errors, warnings and notes."""


def read_header(path: str | Path) -> MrcHeader:
    """Read and check a header without reading pixels.

    Raises
    ------
    MissingInputError
        There is no such file.
    FormatError
        The file is unusable; the message has all reasons.
    """
    path = Path(path)
    descriptor = open_for_reading(path)
    try:
        return parse_header(path, descriptor)
    finally:
        os.close(descriptor)


def read_head(descriptor: int) -> tuple[bytes, int]:
    """Give the first 1024 bytes (fewer in a shorter file) and the file size."""
    return os.pread(descriptor, HEADER_BYTES, 0), os.fstat(descriptor).st_size


def parse_header(path: Path, descriptor: int) -> MrcHeader:
    """Read the header of an opened file, or raise `FormatError` with all mistakes."""
    head, size_bytes = read_head(descriptor)
    return parse_head(path, head, size_bytes, lambda count: os.pread(descriptor, count, HEADER_BYTES))


def parse_head(path: Path, head: bytes, size_bytes: int, read_extended: Callable[[int], bytes]) -> MrcHeader:
    """Check the first 1024 bytes against the file size; `read_extended(n)` gives the next n bytes."""
    seen = examine(head, size_bytes)
    errors = [finding.message for finding in seen.findings if finding.severity == "error"]
    if errors or seen.record is None:
        raise FormatError(f"{path}: " + "; ".join(errors))
    record = seen.record
    mode, nx, ny, nz, extended_bytes = (int(record[name]) for name in ("mode", "nx", "ny", "nz", "nsymbt"))
    extended = read_extended(extended_bytes)
    if len(extended) != extended_bytes:
        raise FormatError(f"{path}: changed while reading: its extended header is cut; let nothing write it meanwhile")
    return MrcHeader(
        path=path,
        record=record,
        byte_order=seen.byte_order,
        mode=mode,
        nx=nx,
        ny=ny,
        nz=nz,
        dtype=np.dtype("u1" if seen.unsigned_bytes else seen.byte_order + _PIXEL_TYPES[mode]),
        extended_header=extended,
        data_offset=HEADER_BYTES + extended_bytes,
        size_bytes=size_bytes,
        pixel_size_angstrom=pixel_size(record),
        warnings=tuple(finding.message for finding in seen.findings if finding.severity == "warning"),
    )


def row_bytes(mode: int, nx: int) -> int:
    """Bytes of one row of `nx` pixels."""
    return (nx * _MODE_BITS[mode] + 7) // 8


def sniff_mrc(head: bytes) -> bool:
    """Tell whether bytes can be the start of an MRC file: they have a ``MAP`` stamp, or fields that make sense."""
    if len(head) < HEADER_BYTES:
        return False
    return head[208:211] == b"MAP" or any(_plausible(_fields(head, order)) for order in ("<", ">"))


def describe_foreign(head: bytes) -> str:
    """Describe a file that has no MRC header."""
    if not head:
        return "the file is empty"
    if all(byte in _TEXT_BYTES for byte in head):
        return "this is a text file"
    if len(head) < HEADER_BYTES:
        return f"the file has only {len(head)} bytes (an MRC header alone has {HEADER_BYTES})"
    return "no MRC header: no 'MAP ' stamp, and the sizes make no sense in either byte order"


@functools.lru_cache(maxsize=8)
def examine(head: bytes, size_bytes: int) -> Examination:
    """Examine a header completely; the result is kept, because several readers of one file ask for it.

    Parameters
    ----------
    head
        The first 1024 bytes, fewer only if the file is shorter.
    size_bytes
        Size of the whole file.

    Returns
    -------
    Examination
        The examination; it has an error if cryoplug cannot read the file.
    """
    by_order = {order: _fields(head, order) for order in _ORDERS} if len(head) >= HEADER_BYTES else {}
    order, finding = _byte_order(head, size_bytes, by_order)
    if order is None:
        return Examination(None, "<", False, (finding,) if finding else ())
    record = by_order[order]
    findings = [finding] if finding else []
    if stale := _stale_extended_header(record, size_bytes):
        findings.append(Finding("warning", "nsymbt", stale))
        record["nsymbt"], record["exttyp"] = 0, b""
    findings += _size_findings(record, size_bytes)
    findings += geometry_findings(record)
    findings += label_findings(record)
    unsigned = how_unsigned(record, head)
    if unsigned:
        findings.append(Finding("warning", "mode", unsigned))
    stored_nx = int(_stored_fields(head, order)["nx"])
    if stored_nx != int(record["nx"]):
        message = (
            f"each byte holds two 4-bit values, as SerialEM wrote them: {int(record['nx'])} columns, not {stored_nx}"
        )
        findings.append(Finding("warning", "nx, mode", message))
    return Examination(_read_only(record), order, bool(unsigned), tuple(findings))


def _read_only(record: np.void) -> np.void:
    kept = np.array([record])
    kept.flags.writeable = False
    return kept[0]


def _byte_order(
    head: bytes, size_bytes: int, by_order: Mapping[ByteOrder, np.void]
) -> tuple[ByteOrder | None, Finding | None]:
    if not by_order:
        return None, Finding("error", "file", f"{describe_foreign(head)}; it is truncated or not an MRC file")
    stamped = _STAMPS.get(head[212:214])
    has_map = head[208:211] == b"MAP"
    stale = [order for order, record in by_order.items() if _stale_extended_header(record, size_bytes)]
    plausible = [order for order, record in by_order.items() if order in stale or _plausible(record)]
    fitting = [order for order in plausible if order in stale or expected_bytes(by_order[order]) <= size_bytes]
    choice: ByteOrder | None
    if stamped in fitting or (stamped in plausible and not fitting):
        choice = stamped
    elif len(fitting) == 1:
        choice = fitting[0]
    elif has_map:  # unusable in either order; the sizes say why
        choice = plausible[0] if plausible else stamped
    else:
        return None, Finding("error", "map", f"{describe_foreign(head)}; it is not an MRC file")
    choice = choice or "<"
    odd = []
    if not has_map:
        odd.append(f"no 'MAP ' stamp (found {head[208:212]!r})")
    if stamped is None:
        odd.append(f"unknown machine stamp {head[212:216].hex(' ')}")
    elif stamped != choice:
        odd.append(f"the machine stamp {head[212:216].hex(' ')} contradicts the sizes")
    if not odd:
        return choice, None
    name = "little-endian" if choice == "<" else "big-endian"
    return choice, Finding("warning", "map, machst", f"{'; '.join(odd)}; read as {name}")


def _size_findings(record: np.void, size_bytes: int) -> list[Finding]:
    nx, ny, nz, mode, extended = (int(record[name]) for name in ("nx", "ny", "nz", "mode", "nsymbt"))
    findings = []
    if min(nx, ny, nz) < 1:
        findings.append(Finding("error", "nx, ny, nz", f"size is {nx} x {ny} x {nz}; allowed: 1 and above"))
    if extended < 0:
        findings.append(Finding("error", "nsymbt", f"extended header of {extended} bytes; allowed: 0 and above"))
    if mode not in SUPPORTED_MODES:
        name = _REFUSED_MODES.get(mode, "unknown")
        allowed = ", ".join(str(known) for known in SUPPORTED_MODES)
        message = f"mode {mode} ({name}) is not supported (supported: {allowed}); re-export it as float32"
        findings.append(Finding("error", "mode", message))
    if mode not in _MODE_BITS or min(nx, ny, nz) < 1 or extended < 0:
        return findings
    expected = expected_bytes(record)
    name = SUPPORTED_MODES.get(mode, f"mode {mode}")
    if expected > size_bytes:
        whole = max(size_bytes - HEADER_BYTES - extended, 0) // (row_bytes(mode, nx) * ny)
        held = f" (whole sections: {whole})" if nz > 1 else ""
        over = size_bytes - (expected - extended)
        what = (
            "it is truncated"
            if over < 0
            else f"it is truncated, or nsymbt is wrong and {over} bytes are the extended header"
        )
        message = (
            f"header says {nx} x {ny} x {nz} {name} and {extended} bytes of extended header, {expected} bytes in all, "
            f"but the file has {size_bytes}{held}: {what}; copy or export it again"
        )
        return [*findings, Finding("error", "nx, ny, nz", message)]
    if nz > 1:
        findings.append(Finding("note", "nz", f"{nz} sections: a stack, movie or volume, not a single micrograph"))
    if max(nx, ny) > MAX_SIDE_PX:
        findings.append(Finding("error", "nx, ny", f"size is {nx} x {ny}; allowed: up to {MAX_SIDE_PX} a side"))
    if extended > MAX_EXTENDED_BYTES:
        message = f"extended header of {extended} bytes; allowed: up to {MAX_EXTENDED_BYTES}; re-export the file"
        findings.append(Finding("error", "nsymbt", message))
    if expected < size_bytes:
        message = f"{size_bytes - expected} bytes follow the last pixel; they are ignored"
        findings.append(Finding("warning", "file", message))
    return findings


def _fields(head: bytes, order: ByteOrder) -> Any:
    record = _stored_fields(head, order)
    return as_mode_101(record) if has_two_values_in_a_byte(record, head) else record


def _stored_fields(head: bytes, order: ByteOrder) -> Any:
    return np.frombuffer(head[:HEADER_BYTES], _STORED[order]).astype(_NATIVE)[0]


def _plausible(record: np.void) -> bool:
    return _has_sizes(record) and int(record["nsymbt"]) >= 0


def _has_sizes(record: np.void) -> bool:
    return all(int(record[name]) > 0 for name in ("nx", "ny", "nz")) and int(record["mode"]) in _MODE_BITS


def _stale_extended_header(record: np.void, size_bytes: int) -> str:
    """Give a sentence if nsymbt belongs to another file (without it, the size fits to the byte); else an empty text."""
    claimed = int(record["nsymbt"])
    if claimed == 0 or not _has_sizes(record) or expected_bytes(record) - claimed != size_bytes:
        return ""
    return (
        f"nsymbt says {claimed} bytes of extended header, but the file is whole without one: the header was copied from "
        "another file; it is read without"
    )


def expected_bytes(record: np.void) -> int:
    """Give the size in bytes of a complete file with this header; the mode must be known."""
    nx, ny, nz, mode, extended = (int(record[name]) for name in ("nx", "ny", "nz", "mode", "nsymbt"))
    return HEADER_BYTES + extended + row_bytes(mode, nx) * ny * nz
