"""MRC files inside gzip, bzip2, xz and zstd: the same pixels and headers, and no bombs."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import lzma
import sys
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import zstandard

from cryoplug.core.micrograph import row_bands
from cryoplug.errors import FormatError, ShapeError
from cryoplug.formats.compressed import CompressedMrcMovie
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.registry import format_of, formats, open_micrograph, open_movie
from cryoplug.inputs.discovery import discover
from cryoplug.testing import MovieFormatContract
from cryoplug.testing.resources import limited_memory

PACK = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def packed(path: Path, payload: bytes) -> Path:
    path.write_bytes(PACK[path.suffix](payload))
    return path


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32)


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("name", ["a.mrc", "anything"])
def test_a_compressed_micrograph_is_read_as_the_plain_one(
    tmp_path: Path, noise: np.ndarray, name: str, ending: str
) -> None:
    write_mrc(tmp_path / "plain.mrc", noise, pixel_size_angstrom=1.5, label="a label")
    path = packed(tmp_path / f"{name}{ending}", (tmp_path / "plain.mrc").read_bytes())
    with open_micrograph(path) as source:
        bands = [rows for _, rows in row_bands(source, band_rows=16)]
        assert np.array_equal(np.concatenate(bands), noise)
        assert source.pixel_size_angstrom == 1.5
        assert source.header.record["nlabl"] == 1
        assert np.array_equal(source.read_rows(3, 5), noise[3:5])
    assert format_of(path).validate(path) == []


@pytest.mark.parametrize("ending", PACK)
def test_sections_of_a_compressed_stack_are_read_in_any_order(tmp_path: Path, ending: str) -> None:
    frames = np.random.default_rng(0).integers(0, 999, (4, 8, 6)).astype(np.int16)
    with mrcfile.new(tmp_path / "s.mrcs", frames):
        pass
    path = packed(tmp_path / f"s.mrcs{ending}", (tmp_path / "s.mrcs").read_bytes())
    with open_movie(path) as movie:
        assert movie.frame_count == 4
        for index in (2, 0, 3, 3, 1):
            assert np.array_equal(movie.read_frame(index), frames[index])
    with open_micrograph(path, section=4) as source:
        assert np.array_equal(source.read_rows(0, 8), frames[3])
    with pytest.raises(FormatError, match="4 sections"):
        open_micrograph(path)
    with pytest.raises(ShapeError, match="section 5 was asked for; allowed: 1 to 4"):
        open_micrograph(path, section=5)


def test_real_compressed_maps_agree_with_mrcfile(shared_data: Path) -> None:
    for name in ("EMD-3001.map.bz2", "emd_3197.map.gz"):
        path = shared_data / "odd_mrc" / name
        stored = mrcfile.open(path, permissive=True).data
        with open_movie(path) as movie:
            assert movie.frame_count == len(stored)
            assert np.array_equal(movie.read_frame(7), stored[7])


@pytest.mark.parametrize("ending", PACK)
def test_damage_is_told(tmp_path: Path, noise: np.ndarray, ending: str) -> None:
    write_mrc(tmp_path / "plain.mrc", noise)
    whole = PACK[ending]((tmp_path / "plain.mrc").read_bytes())
    path = tmp_path / f"a.mrc{ending}"
    flipped = bytearray(whole)
    flipped[-6] ^= 0xFF  # in the checksum
    for payload in (whole[:2000], bytes(flipped), whole[:20]):
        path.write_bytes(payload)
        with pytest.raises(FormatError, match=f"^{path}: damaged or incomplete"), open_micrograph(path) as source:
            source.read_rows(0, 50)
        assert [found.severity for found in format_of(path).validate(path)] == ["error"]
    packed(path, b"some text " * 200)
    with pytest.raises(FormatError, match="holds no MRC image"):
        open_micrograph(path)
    packed(path, (tmp_path / "plain.mrc").read_bytes()[:-4])
    with pytest.raises(FormatError, match="before section 1 of 1 is complete"), open_micrograph(path) as source:
        source.read_rows(0, 1)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("more", [0, 1, 5000])
def test_the_checksum_is_looked_at_even_where_bytes_follow_the_pixels(
    tmp_path: Path, noise: np.ndarray, ending: str, more: int
) -> None:
    write_mrc(tmp_path / "plain.mrc", noise, pixel_size_angstrom=1.5)
    path = packed(tmp_path / f"a{ending}", (tmp_path / "plain.mrc").read_bytes() + bytes(more))
    with open_micrograph(path) as source:
        assert np.array_equal(source.read_rows(0, 50), noise)
    whole = bytearray(path.read_bytes())
    whole[{".gz": -6, ".bz2": -4, ".xz": -40}[ending]] ^= 0xFF
    path.write_bytes(whole)
    with pytest.raises(FormatError, match="damaged or incomplete"), open_micrograph(path) as source:
        source.read_rows(0, 50)


@pytest.mark.parametrize("ending", PACK)
def test_a_bomb_is_refused_before_it_grows(tmp_path: Path, ending: str) -> None:
    write_mrc(tmp_path / "plain.mrc", np.zeros((2, 2), np.float32))
    header = bytearray((tmp_path / "plain.mrc").read_bytes()[:1024])
    header[:8] = np.array([4096, 4096], "<i4").tobytes()
    path = packed(tmp_path / f"a.mrc{ending}", bytes(header) + bytes(4096 * 4096 * 4))
    with pytest.raises(FormatError, match="claim to hold 67109888; allowed: up to 100 times as many"):
        CompressedMrcMovie(path)


@pytest.mark.parametrize("ending", [".xz", ".zst"])
def test_a_bomb_without_an_image_takes_no_memory(tmp_path: Path, ending: str) -> None:
    """A gigabyte of zeros, of which a step unpacks to little, and no image in it."""
    if ending == ".xz":
        chunks = [lzma.compress(bytes(1 << 26))] * 16  # streams one after another
    else:
        chunks = [PACK[".zst"](bytes(1 << 26))] * 16
    path = tmp_path / f"a.mrc{ending}"
    path.write_bytes(b"".join(chunks))
    with limited_memory(96 << 20, "a bomb"), pytest.raises(FormatError, match="holds no MRC image"):
        CompressedMrcMovie(path)


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("cut_at", [1, 1000, 1024, 5000, 9024])
def test_a_file_of_several_streams_is_read_as_one(tmp_path: Path, noise: np.ndarray, ending: str, cut_at: int) -> None:
    """As pbzip2, pigz, pixz and pzstd write them; zeros may follow a stream."""
    write_mrc(tmp_path / "plain.mrc", noise)
    whole = (tmp_path / "plain.mrc").read_bytes()
    pack = PACK[ending]
    padding = b"" if ending in (".bz2", ".zst") else bytes(8)
    path = tmp_path / f"a.mrc{ending}"
    path.write_bytes(pack(whole[:cut_at]) + padding + pack(whole[cut_at:]) + padding)
    with open_micrograph(path) as source:
        assert np.array_equal(source.read_rows(0, 50), noise)
    assert format_of(path).validate(path) == []


def test_a_header_without_its_extended_header_is_told_for_what_it_is(tmp_path: Path, noise: np.ndarray) -> None:
    write_mrc(tmp_path / "plain.mrc", noise)
    whole = bytearray((tmp_path / "plain.mrc").read_bytes())
    whole[92:96] = (1024).to_bytes(4, "little")
    path = packed(tmp_path / "a.mrc.gz", bytes(whole))
    said = "the header claims 1024 bytes of extended header"
    with pytest.raises(FormatError, match=said), open_micrograph(path) as source:
        source.read_rows(0, 1)


def test_what_pzstd_writes_begins_with_a_frame_to_be_passed_over(tmp_path: Path, noise: np.ndarray) -> None:
    write_mrc(tmp_path / "plain.mrc", noise)
    frame = PACK[".zst"]((tmp_path / "plain.mrc").read_bytes())
    path = tmp_path / "a.mrc.zst"
    path.write_bytes(b"\x50\x2a\x4d\x18\x04\0\0\0" + len(frame).to_bytes(4, "little") + frame)
    with open_micrograph(path) as source:
        assert np.array_equal(source.read_rows(0, 50), noise)


def test_a_stream_that_asks_for_too_much_memory_is_refused(tmp_path: Path) -> None:
    huge = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]
    path = tmp_path / "a.mrc.xz"
    path.write_bytes(lzma.compress(bytes(5000), filters=huge))
    with pytest.raises(FormatError, match=f"^{path}: damaged or incomplete"):
        CompressedMrcMovie(path)


def test_without_a_library_for_zstd_the_way_to_get_it_is_told(tmp_path: Path, noise, monkeypatch) -> None:
    write_mrc(tmp_path / "plain.mrc", noise)
    path = packed(tmp_path / "a.mrc.zst", (tmp_path / "plain.mrc").read_bytes())
    for module in ("zstandard", "compression", "compression.zstd"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        FormatError, match=r"packed by zstd; to read it: pip install 'cryoplug\[movies\]', or unpack it"
    ):
        CompressedMrcMovie(path)


def test_a_folder_is_searched_for_all_of_them(tmp_path: Path, noise: np.ndarray) -> None:
    write_mrc(tmp_path / "plain.mrc", noise)
    (tmp_path / "in").mkdir()
    for number, ending in enumerate(PACK):
        packed(tmp_path / "in" / f"m{number}.mrc{ending}", (tmp_path / "plain.mrc").read_bytes())
    assert [item.path.suffix for item in discover([str(tmp_path / "in")])] == list(PACK)


class TestCompressed(MovieFormatContract):
    spec = formats()["mrc-compressed"]
    pixel_size_angstrom = 1.5
    shares_first_bytes_with = ("gzip", "bzip2", "xz", "zstd")

    def write_movie(self, path: Path, frames: np.ndarray) -> None:
        plain = path.with_name("plain.mrcs")
        with warnings.catch_warnings(), mrcfile.new(plain, overwrite=True) as file:
            warnings.simplefilter("ignore")  # of NaN
            file.set_data(frames)
            file.voxel_size = 1.5
            file.set_image_stack()
        packed(path, plain.read_bytes())


class TestBzip2(TestCompressed):
    spec = dataclasses.replace(formats()["mrc-compressed"], extensions=(".mrc.bz2",))
    test_opening_reads_no_pixels = None  # nothing comes out of bzip2 before a whole block of 900 kB went in
    test_the_registry_finds_it_by_name_and_by_content = None  # TestCompressed does that for all endings


class TestXz(TestCompressed):
    spec = dataclasses.replace(formats()["mrc-compressed"], extensions=(".mrc.xz",))
    test_the_registry_finds_it_by_name_and_by_content = None  # TestCompressed does that for all endings


class TestZstd(TestCompressed):
    spec = dataclasses.replace(formats()["mrc-compressed"], extensions=(".mrc.zst",))
    test_opening_reads_no_pixels = None  # nothing comes out of zstd before a whole block of 128 kB went in
    test_the_registry_finds_it_by_name_and_by_content = None  # TestCompressed does that for all endings
