"""MRC files, plain and compressed, whose header lies about what follows."""

from __future__ import annotations

import gzip
import lzma
import struct
import zlib
from pathlib import Path

import pytest
import zstandard

from cryoplug.formats.registry import open_micrograph

HUGE = (1 << 31) - 1


def mrc_header(nx: int = 32, ny: int = 24, nz: int = 1, *, mode: int = 2, extended: int = 0) -> bytes:
    header = bytearray(1024)
    header[:16] = struct.pack("<4i", nx, ny, nz, mode)
    header[28:52] = struct.pack("<3i3f", 32, 24, 1, 40.0, 30.0, 1.25)
    header[64:76] = struct.pack("<3i", 1, 2, 3)
    header[92:96] = struct.pack("<i", extended)
    header[208:216] = b"MAP DD\0\0"
    return bytes(header)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (mrc_header(HUGE, HUGE), "2147483647 x 2147483647 x 1 float32"),
        (mrc_header(HUGE, HUGE, HUGE), "truncated; copy or export it again"),
        (mrc_header(-32), "size is -32 x 24 x 1; allowed: 1 and above"),
        (mrc_header(32, -(1 << 31)), "-2147483648"),
        (mrc_header(32, 24, -1), "32 x 24 x -1"),
        (mrc_header(0), "size is 0 x 24 x 1"),
        (mrc_header(32, 25, extended=HUGE), "2147483647 bytes of extended header"),
        (mrc_header(32, 25, extended=-1), "extended header of -1 bytes; allowed: 0 and above"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, refused, header: bytes, message: str) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(header + bytes(32 * 24 * 4))
    assert message in refused("image", path)


@pytest.mark.parametrize(
    ("header", "size_bytes", "message"),
    [
        (mrc_header(1 << 30, 1), 1 << 33, "allowed: up to 131072 a side"),
        (mrc_header(extended=HUGE), 1 << 32, "allowed: up to 67108864"),
    ],
)
def test_a_sparse_file_that_suits_its_header_takes_no_memory(
    tmp_path: Path, refused, header: bytes, size_bytes: int, message: str
) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(header)
    with path.open("r+b") as stream:
        stream.truncate(size_bytes)
    assert message in refused("image", path)


def zeros(size_bytes: int, head: bytes) -> bytes:
    """Give `head` and zeros in one gzip stream."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    parts = [packer.compress(head)]
    parts += [packer.compress(bytes(1 << 24)) for _ in range(size_bytes >> 24)]
    return b"".join([*parts, packer.flush()])


def test_a_gzip_bomb_that_claims_a_great_image_is_refused(tmp_path: Path, refused) -> None:
    path = tmp_path / "a.mrc.gz"
    path.write_bytes(zeros(256 << 20, mrc_header(8192, 8192)))
    assert path.stat().st_size < 2 << 20
    assert "allowed" in refused("image", path)


@pytest.mark.parametrize("head", [b"", b"\x93NUMPY", mrc_header(HUGE, HUGE), mrc_header(-1)])
def test_a_gzip_bomb_without_an_image_is_refused(tmp_path: Path, refused, head: bytes) -> None:
    path = tmp_path / "a.mrc.gz"
    path.write_bytes(zeros(256 << 20, head))
    refused("image", path)


def one_stream(kind: str, size_bytes: int, head: bytes) -> bytes:
    """Give `head` and zeros in one stream of xz or zstd."""
    packer = lzma.LZMACompressor(preset=1) if kind == "xz" else zstandard.ZstdCompressor().compressobj()
    parts = [packer.compress(head)]
    parts += [packer.compress(bytes(1 << 24)) for _ in range(size_bytes >> 24)]
    return b"".join([*parts, packer.flush()])


@pytest.mark.parametrize("kind", ["xz", "zst"])
@pytest.mark.parametrize("head", [b"", b"\x93NUMPY", mrc_header(HUGE, HUGE), mrc_header(8192, 8192)])
def test_bombs_of_xz_and_zstd_are_refused(tmp_path: Path, refused, kind: str, head: bytes) -> None:
    path = tmp_path / f"a.mrc.{kind}"
    path.write_bytes(one_stream(kind, 128 << 20, head))
    refused("image", path)


def test_a_stream_that_holds_less_than_its_header_says_is_refused(tmp_path: Path, refused) -> None:
    path = tmp_path / "a.mrc.gz"
    path.write_bytes(gzip.compress(mrc_header(1024, 1024) + bytes(1000)))
    refused("image", path)


def test_a_stream_that_goes_on_after_its_image_is_not_followed(tmp_path: Path, reader) -> None:
    path = tmp_path / "a.mrc.gz"
    path.write_bytes(zeros(256 << 20, mrc_header()))
    outcome = reader("image", path)
    assert outcome.error is None or outcome.is_ours
    assert outcome.work_s < 1 and outcome.bytes < 1e8


@pytest.mark.parametrize(
    "payload",
    [
        b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * (16 << 20),
        b"\x1f\x8b\x08\x04" + bytes(6) + b"\xff\xff" + b"n" * 70_000,
        gzip.compress(b"") * 500_000,
        b"BZh9" + b"\x17\x72\x45\x38\x50\x90\0\0\0\0" + b"BZh9\x17\x72\x45\x38\x50\x90\0\0\0\0" * 500_000,
        lzma.compress(b"") * 300_000,
        lzma.compress(b"") + bytes(20 << 20),
        zstandard.ZstdCompressor().compress(b"") * 500_000,
        b"\x50\x2a\x4d\x18\0\0\0\0" * 500_000,
    ],
    ids=[
        "endless name",
        "long extra field",
        "empty members",
        "empty bzip2 members",
        "empty xz streams",
        "zeros after an xz stream",
        "empty zstd frames",
        "zstd frames to be passed over",
    ],
)
def test_a_stream_that_keeps_the_reader_busy_is_refused(tmp_path: Path, refused, payload: bytes) -> None:
    path = tmp_path / "a.mrc.gz"
    path.write_bytes(payload)
    refused("image", path)


def test_a_plain_image_of_the_same_maker_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(mrc_header() + bytes(32 * 24 * 4))
    with open_micrograph(path) as source:
        assert source.shape == (24, 32)
    packed = tmp_path / "a.mrc.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with open_micrograph(packed) as source:
        assert source.read_rows(0, 24).shape == (24, 32)
