"""SER files of TIA: the table of offsets, and the images that it leads to."""

from __future__ import annotations

import struct
from pathlib import Path

from fuzz.targets import Target, mrc

_IMAGES, _TIMES, _INT16 = 0x4122, 0x4152, 2
_WIDTH, _HEIGHT = 32, 24


def _file(count: int) -> bytes:
    axis = struct.pack("<ddi", 0, 2e-10, 0)
    image = 2 * axis + struct.pack("<hii", _INT16, _WIDTH, _HEIGHT) + bytes(range(256)) * (_WIDTH * _HEIGHT * 2 // 256)
    head = struct.pack("<HHH4I", 0x4949, 0x0197, 0x0210, _IMAGES, _TIMES, count, count)
    place = len(head) + 8
    offsets = [place + 8 * count + index * len(image) for index in range(count)]
    return head + struct.pack(f"<II{2 * count}I", place, 0, *offsets, *([0] * count)) + image * count


def _seeds() -> tuple[bytes, ...]:
    return _file(1), _file(3)


def _run(folder: Path, payload: bytes) -> None:
    mrc.run(folder, payload, "input.ser")


TARGET = Target(seeds=_seeds, run=_run)
