"""MRC files: the header, the extended header, and the first rows."""

from __future__ import annotations

import contextlib
import importlib
import struct
from pathlib import Path

from cryoplug.formats.mrc import validate_mrc
from cryoplug.formats.registry import open_micrograph, open_movie
from fuzz.targets import Target

# Damage can make another format of it; importing a reader is not what is measured.
for _library in ("tifffile", "ncempy.io.dm", "ncempy.io.ser"):
    with contextlib.suppress(ImportError):
        importlib.import_module(_library)

_PIXEL_BYTES = {0: 1, 1: 2, 2: 4, 6: 2, 12: 2, 101: 1}


def image(mode: int = 2, *, order: str = "<", sections: int = 1, extended: bytes = b"", mark: bytes = b"MAP ") -> bytes:
    """Give an MRC file of 32 x 24 pixels."""
    nx, ny = 32, 24
    header = bytearray(1024)
    header[:40] = struct.pack(f"{order}10i", nx, ny, sections, mode, 0, 0, 0, nx, ny, sections)
    header[40:52] = struct.pack(f"{order}3f", nx * 1.25, ny * 1.25, 1.25)
    header[64:76] = struct.pack(f"{order}3i", 1, 2, 3)
    header[92:96] = struct.pack(f"{order}i", len(extended))
    header[104:112] = b"FEI1" + struct.pack(f"{order}i", 20140)
    header[208:216] = mark + (b"DD\0\0" if order == "<" else b"\x11\x11\0\0")
    return bytes(header) + extended + bytes(range(256)) * (nx * ny * sections * _PIXEL_BYTES[mode] // 256 + 1)


def _seeds() -> tuple[bytes, ...]:
    modes = [image(mode) for mode in _PIXEL_BYTES]
    return (*modes, image(1, order=">"), image(6, sections=3), image(2, extended=b"x" * 768), image(1, mark=b"\0" * 4))


def run(folder: Path, payload: bytes, name: str = "input.mrc") -> None:
    """Validate it, then read the first rows and the last frame."""
    path = folder / name
    path.write_bytes(payload)
    if name.endswith(".mrc"):
        validate_mrc(path)
    with open_movie(path) as movie:
        section = 1 if movie.frame_count > 1 else None
        if movie.frame_shape[0] * movie.frame_shape[1] < 1 << 22:
            movie.read_frame(movie.frame_count - 1)
    with open_micrograph(path, section=section) as source:
        source.read_rows(0, min(source.shape[0], 16))


TARGET = Target(seeds=_seeds, run=run)
