"""DM4 and SER files through ncempy."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from cryoplug.errors import FormatError
from cryoplug.formats.registry import format_of, formats, open_micrograph, open_movie
from cryoplug.testing import MovieFormatContract

DM4 = "movies/dmTest_3D_int16_64,65,66.dm4"


def ser_file(path: Path, frames: np.ndarray, pixel_m: float = 2e-10) -> Path:
    """Write a SER file (version 0x210) of 16-bit images by its published layout."""
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
        body += np.flipud(frame).astype("<u2").tobytes()
    path.write_bytes(head + body)
    return path


def test_a_dm4_series_is_read_image_by_image(shared_data: Path) -> None:
    dm = pytest.importorskip("ncempy.io.dm")
    path = shared_data / DM4
    stored = dm.dmReader(path)["data"]
    with open_movie(path) as movie:
        assert (movie.frame_count, movie.frame_shape) == stored.shape[:1] + stored.shape[1:][:0] + (stored.shape[1:],)
        assert all(np.array_equal(movie.read_frame(index), stored[index]) for index in range(len(stored)))
        assert movie.pixel_size_angstrom == pytest.approx(0.02)  # 2 pm in x
    with pytest.raises(FormatError, match=f"{len(stored)} sections"):
        open_micrograph(path)
    assert [found.severity for found in format_of(path).validate(path)] == ["note"]


def test_a_cut_dm4_is_refused(tmp_path: Path, shared_data: Path) -> None:
    pytest.importorskip("ncempy")
    whole = (shared_data / DM4).read_bytes()
    for length in (16, 300, 5000, 200_000):
        path = tmp_path / "a.dm4"
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=f"^{path}: "):
            open_movie(path)


def test_damaged_tags_of_a_dm4_are_no_bug(tmp_path: Path, shared_data: Path) -> None:
    whole = (shared_data / DM4).read_bytes()
    path = tmp_path / "a.dm4"
    path.write_bytes(whole.replace(b"%%%%", b"%%%x", 1))
    with pytest.raises(FormatError, match=f"^{path}: damaged, or not in the format"):
        open_movie(path)


def test_a_ser_series_is_read_image_by_image(tmp_path: Path) -> None:
    pytest.importorskip("ncempy")
    frames = np.random.default_rng(0).integers(0, 999, (3, 5, 7)).astype(np.uint16)
    path = ser_file(tmp_path / "a.ser", frames)
    with open_movie(path) as movie:
        assert movie.pixel_size_angstrom == pytest.approx(2.0)
        assert np.array_equal(np.stack([movie.read_frame(index) for index in range(3)]), frames)
    for length in (10, 30, 60, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(FormatError, match=f"^{path}: "), open_movie(path) as movie:
            movie.read_frame(2)


@pytest.mark.parametrize("name", ["a.dm4", "a.ser"])
def test_without_ncempy_the_way_to_get_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in ("ncempy", "ncempy.io", "ncempy.io.dm", "ncempy.io.ser"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).write_bytes(b"\0\0\0\4" + bytes(60))
    with pytest.raises(FormatError, match=r"pip install 'cryoplug\[dm\]'"):
        open_movie(tmp_path / name)


def dm_file(path: Path, frames: np.ndarray) -> Path:
    """Write a DM3 or DM4 file of one float32 image or series, without the thumbnail, by its published layout."""
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


class TestDm(MovieFormatContract):
    spec = formats()["dm"]
    pixel_size_angstrom = 1.25
    test_opening_reads_no_pixels = None  # ncempy tells the type of a pixel only with the first image

    def write_movie(self, path: Path, frames: np.ndarray) -> None:
        dm_file(path, frames)


class TestSer(MovieFormatContract):
    spec = formats()["ser"]
    dtype = np.uint16
    pixel_size_angstrom = 2.0
    test_opening_reads_no_pixels = None  # ncempy tells the size of an image only with the first one

    def write_movie(self, path: Path, frames: np.ndarray) -> None:
        ser_file(path, frames)
