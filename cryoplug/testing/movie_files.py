"""Write small files of microscopes (EER, SER, DM3 and DM4) for tests, in their published layouts."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

_LONGEST_RUN, _RUN_BITS = 127, 7
_PLACE_BITS = 4


def eer_file(path: Path, electrons: list[list[tuple[int, int]]], side: int = 64, *, seed: int | None = None) -> Path:
    """Write an EER movie: runs of 7 bits, 2 + 2 bits of the place within the pixel (compression 65001).

    Parameters
    ----------
    path
        The file.
    electrons
        For each frame, the places ``(y, x)`` of its electrons, each once, in the order of the movie's rows.
    side
        Side of the square frame in pixels.
    seed
        Random seed for the place of each electron within its pixel, on a grid of 4 x 4; None puts all at the same place.

    Returns
    -------
    Path
        The same path.
    """
    random = None if seed is None else np.random.default_rng(seed)
    strips = [_runs(sorted({y * side + x for y, x in frame}), side * side, random) for frame in electrons]
    xml = b'<metadata><item name="sensorPixelSize.width" unit="m">9.5e-11</item></metadata>\0'
    body = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    places = []
    for payload in (xml, *strips):
        places.append(len(body))
        body += payload
    link = 8
    for strip, place in zip(strips, places[1:], strict=True):
        struct.pack_into("<Q", body, link, len(body))
        tags = [
            (256, 4, 1, side),
            (257, 4, 1, side),
            (259, 3, 1, 65001),
            (262, 3, 1, 1),
            (273, 16, 1, place),
            (278, 4, 1, side),
            (279, 16, 1, len(strip)),
            (65001, 7, len(xml), places[0]),
        ]
        body += struct.pack("<Q", len(tags))
        for tag in tags:
            body += struct.pack("<HHQQ", *tag)
        link = len(body)
        body += bytes(8)
    path.write_bytes(bytes(body))
    return path


def _runs(places: list[int], pixels: int, random: np.random.Generator | None) -> bytes:
    """Pack the electrons of a frame: the number of skipped pixels, up to 127 at a time, and the place within the pixel."""
    full, rest = np.divmod(np.diff([-1, *places, pixels]) - 1, _LONGEST_RUN)
    ends = np.cumsum(full + 2)
    numbers = np.full(ends[-1], _LONGEST_RUN, np.uint8)
    numbers[ends - 2] = rest
    numbers[ends - 1] = 0 if random is None else random.integers(0, 1 << _PLACE_BITS, len(ends))
    widths = np.full(ends[-1], _RUN_BITS)
    widths[ends - 1] = _PLACE_BITS
    starts = np.cumsum(widths) - widths
    bits = np.zeros(-(-int(widths.sum()) // 16) * 16, np.uint8)  # decoders want whole words
    for bit in range(_RUN_BITS):
        held = widths > bit
        bits[starts[held] + bit] = numbers[held] >> bit & 1
    return np.packbits(bits, bitorder="little").tobytes()


def ser_file(path: Path, frames: np.ndarray, pixel_m: float = 2e-10) -> Path:
    """Write a SER file (version 0x210) of 16-bit images.

    Parameters
    ----------
    path
        The file.
    frames
        ``(n, y, x)``, whole numbers; the first row is stored first.
    pixel_m
        Pixel size in metres.

    Returns
    -------
    Path
        The same path.
    """
    count, height, width = frames.shape
    head = struct.pack("<HHH", 0x4949, 0x0197, 0x0210) + struct.pack("<IIII", 0x4122, 0x4152, count, count)
    dimension = struct.pack("<iddii6si", count, 0, 1, 0, 6, b"Number", 0)
    place = len(head) + 4 + 4 + len(dimension)
    head += struct.pack("<II", place, 1) + dimension
    size = 2 * (8 + 8 + 4) + 2 + 8 + height * width * 2
    offsets = [place + 8 * count + index * size for index in range(count)]
    body = struct.pack(f"<{count}I", *offsets) + struct.pack(f"<{count}I", *([0] * count))
    for frame in frames:
        body += struct.pack("<ddi", 0, pixel_m, 0) * 2 + struct.pack("<hii", 2, width, height)
        body += frame.astype("<u2").tobytes()
    path.write_bytes(head + body)
    return path


def dm_file(path: Path, frames: np.ndarray) -> Path:
    """Write a DM3 or DM4 file (by its ending) with one float32 image or series, without thumbnail; 1.25 A a pixel.

    Parameters
    ----------
    path
        The file.
    frames
        ``(n, y, x)``; the first row is stored first.

    Returns
    -------
    Path
        The same path.
    """
    long = ">Q" if path.suffix == ".dm4" else ">I"

    def number(value: int) -> bytes:
        return struct.pack(long, value)

    def entry(kind: int, name: str, body: bytes) -> bytes:
        size = number(len(body)) if path.suffix == ".dm4" else b""
        return struct.pack(">BH", kind, len(name)) + name.encode() + size + body

    def value(name: str, code: int, payload: bytes) -> bytes:
        return entry(21, name, b"%%%%" + number(1) + number(code) + payload)

    def array(name: str, code: int, count: int, payload: bytes) -> bytes:
        return entry(21, name, b"%%%%" + number(3) + number(20) + number(code) + number(count) + payload)

    def group(name: str, *parts: bytes) -> bytes:
        return entry(20, name, bytes(2) + number(len(parts)) + b"".join(parts))

    count, height, width = frames.shape
    sides = [width, height, count][: 2 if count == 1 else 3]
    scales = [
        group(
            str(place),
            value("Origin", 6, struct.pack("<f", 0)),
            value("Scale", 6, struct.pack("<f", 0.125)),
            array("Units", 4, 2, "nm".encode("utf-16-le")),
        )
        for place in range(1, len(sides) + 1)
    ]
    pixels = frames.astype("<f4")
    image = group(
        "ImageData",
        group("Calibrations", group("Dimension", *scales)),
        array("Data", 6, pixels.size, pixels.tobytes()),
        value("DataType", 5, struct.pack("<I", 2)),
        group("Dimensions", *(value(str(n), 5, struct.pack("<I", side)) for n, side in enumerate(sides, 1))),
    )
    root = bytes(2) + number(1) + group("ImageList", group("1", image))
    version = 4 if path.suffix == ".dm4" else 3
    path.write_bytes(struct.pack(">I", version) + number(len(root)) + struct.pack(">I", 1) + root)
    return path
