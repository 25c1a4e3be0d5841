"""MRC files are read as mrcfile reads them, or refused by name with a reason; no header makes memory grow."""

from __future__ import annotations

import os
import struct
import tracemalloc
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryoplug.errors import CryoplugError, FormatError, InputError, MissingInputError, ShapeError
from cryoplug.formats.mrc import MrcMicrograph, MrcMovie, read_header, validate_mrc, write_mrc
from cryoplug.formats.mrc_header import examine
from cryoplug.formats.registry import MRC
from cryoplug.testing import MovieFormatContract

MODES = {"int8": 0, "int16": 1, "float32": 2, "uint16": 6, "float16": 12}


def raw_header(nx: int, ny: int, nz: int, mode: int, *, order: str = "<", nsymbt: int = 0) -> bytearray:
    """A header as a careful program writes it, with fields to spoil."""
    header = bytearray(1024)
    struct.pack_into(f"{order}10i", header, 0, nx, ny, nz, mode, 0, 0, 0, max(nx, 1), max(ny, 1), 1)
    struct.pack_into(f"{order}6f", header, 40, 1.5 * nx, 1.5 * ny, 1.5, 90, 90, 90)
    struct.pack_into(f"{order}3i", header, 64, 1, 2, 3)
    struct.pack_into(f"{order}3f", header, 76, 0, -1, -2)
    struct.pack_into(f"{order}2i", header, 88, 0, nsymbt)
    struct.pack_into(f"{order}i", header, 108, 20141)
    header[208:212] = b"MAP "
    header[212:216] = b"DD\0\0" if order == "<" else b"\x11\x11\0\0"
    struct.pack_into(f"{order}f", header, 216, -1)
    return header


def write_raw(path: Path, header: bytes, payload: bytes = b"") -> Path:
    path.write_bytes(bytes(header) + payload)
    return path


def whole(path: Path) -> np.ndarray:
    with MrcMicrograph(path) as source:
        return source.read_rows(0, source.shape[0])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", MODES)
def test_every_mode_and_byte_order_gives_the_pixels(tmp_path: Path, name: str, order: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 120, (7, 5)).astype(np.dtype(name).newbyteorder(order))
    path = write_raw(tmp_path / "a.mrc", raw_header(5, 7, 1, MODES[name], order=order), pixels.tobytes())
    with MrcMicrograph(path) as source:
        assert (source.shape, source.dtype.name, source.warnings) == ((7, 5), name, ())
        assert source.pixel_size_angstrom == 1.5
        assert source.header.byte_order == order
        rows = source.read_rows(2, 6)
        assert rows.dtype == np.dtype(np.float32)
        assert rows.dtype.isnative and rows.flags.c_contiguous
        assert np.array_equal(rows, pixels[2:6].astype(np.float32))
        assert source.read_rows(3, 3).shape == (0, 5)
    with mrcfile.open(path) as peer:
        assert np.array_equal(whole(path), peer.data)


@pytest.mark.parametrize("nx", [1, 6, 7])
def test_mode_101_holds_two_pixels_in_a_byte_low_half_first(tmp_path: Path, nx: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 16, (5, nx)).astype(np.uint8)
    padded = np.pad(pixels, ((0, 0), (0, nx % 2)))
    payload = (padded[:, 0::2] | padded[:, 1::2] << 4).tobytes()
    assert np.array_equal(whole(write_raw(tmp_path / "a.mrc", raw_header(nx, 5, 1, 101), payload)), pixels)


def test_real_micrographs_are_read_as_mrcfile_reads_them(shared_data: Path) -> None:
    paths = sorted([*(shared_data / "micrographs").glob("*.mrc"), *(shared_data / "halves_apoferritin").glob("*.mrc")])
    assert paths
    for path in paths:
        with mrcfile.open(path) as peer:
            assert np.array_equal(whole(path), np.squeeze(peer.data).astype(np.float32))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("DEgain_nz32766_Movie_00784.seq.gain.mrc", "8589411328 bytes in all, but the file has 263168"),
        ("EMD-3001.map.bz2", "not an MRC file"),
        ("emd_3197.map.gz", "not an MRC file"),
        ("rsciio_20241021_00405_info.txt", "this is a text file"),
        ("singleImage_swap.spi", "not an MRC file"),
        ("smallStack.img", "not an MRC file"),
        ("smallStack.stk", "not an MRC file"),
        ("truncated_header_only.mrc", "132096 bytes in all, but the file has 1024"),
    ],
)
def test_odd_files_are_refused_by_name_and_reason(shared_data: Path, name: str, reason: str) -> None:
    path = shared_data / "odd_mrc" / name
    with pytest.raises(FormatError) as caught:
        read_header(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)
    assert any(finding.severity == "error" and reason in finding.message for finding in validate_mrc(path))


STACKS = {
    "5i55_tiny.ccp4": 10,
    "EMformat_named_human_ribo_mask_32_8_5_Mirrored.mrc": 32,
    "crs_or_trailing_file.mrc": 10,
    "invalid_axes.mrc": 8,
    "mode6_Custom_movie.mrc": 30,
    "mode6_ROI_Random_Scan_movie.mrc": 348,
    "noMAP_mode0_rec3D.rec": 78,
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nz", [1, 3])
@pytest.mark.parametrize("nsymbt", [80, 1024, 57600, -4, 0x20202020])
def test_an_extended_header_that_was_not_copied_with_its_header_is_told_and_the_pixels_are_read(
    tmp_path: Path, order: str, nz: int, nsymbt: int
) -> None:
    """Without it the size fits to the byte, so that nothing is missing."""
    frames = np.random.default_rng(1).normal(size=(nz, 9, 11)).astype(f"{order}f4")
    header = raw_header(11, 9, nz, 2, order=order, nsymbt=nsymbt)
    header[104:108] = b"FEI1"
    path = write_raw(tmp_path / "a.mrc", header, frames.tobytes())
    said = f"nsymbt says {nsymbt} bytes of extended header, but the file is whole without one"
    with MrcMovie(path) as movie:
        assert [text for text in movie.warnings if said in text]
        assert all(np.array_equal(movie.read_frame(index), frames[index]) for index in range(nz))
    assert read_header(path).extended_header == b""
    found = validate_mrc(path)
    assert [(item.severity, item.field) for item in found if said in item.message] == [("warning", "nsymbt")]
    assert not [item for item in found if item.severity == "error"]
    # What is written with this header has none of what was never there.
    write_mrc(tmp_path / "b.mrc", frames[0].astype("<f4"), template=read_header(path))
    assert (tmp_path / "b.mrc").stat().st_size == 1024 + 9 * 11 * 4


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (1024 + 512 + 396, "it is truncated, or nsymbt is wrong"),
        (1024 + 395, "it is truncated; copy"),
        (1024 + 57600 + 395, "it is truncated, or nsymbt is wrong"),
    ],
)
def test_other_sizes_than_without_an_extended_header_are_not_guessed_at(tmp_path: Path, size: int, said: str) -> None:
    path = write_raw(tmp_path / "a.mrc", raw_header(11, 9, 1, 2, nsymbt=57600), bytes(size - 1024))
    with pytest.raises(FormatError, match=said):
        read_header(path)


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_is_no_micrograph_but_each_of_its_sections_is(shared_data: Path, name: str) -> None:
    path, count = shared_data / "odd_mrc" / name, STACKS[name]
    with pytest.raises(FormatError, match=f"{count} sections: a stack, movie or volume, where a single micrograph"):
        MrcMicrograph(path)
    assert any(found.severity == "note" and f"{count} sections" in found.message for found in validate_mrc(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stored = mrcfile.open(path, permissive=True).data
    with MrcMovie(path) as movie:
        assert movie.frame_count == count
        for index in {0, count // 2, count - 1}:
            frame = movie.read_frame(index)
            with MrcMicrograph(path, index + 1) as section:
                assert np.array_equal(section.read_rows(0, section.shape[0]), frame)
            if movie.dtype.itemsize > 1:  # bytes without a sign are an old convention that mrcfile does not know
                assert np.array_equal(frame, stored[index].astype(np.float32), equal_nan=True)
        with pytest.raises(ShapeError, match=rf"section {count + 1} was asked for; allowed: 1 to {count}"):
            movie.read_frame(count)
    for section in (0, count + 1):
        with pytest.raises(ShapeError, match=f"section {section} was asked for"):
            MrcMicrograph(path, section)


def test_an_old_file_without_stamps_is_read_with_a_warning(shared_data: Path) -> None:
    path = shared_data / "odd_mrc" / "noMAP_mode0_mrc2D.mrc"
    with MrcMicrograph(path) as source:
        pixels = source.read_rows(0, 64)
        assert "no 'MAP ' stamp" in source.warnings[0]
        # Its header says 144 to 159: bytes that IMOD wrote unsigned.
        assert (pixels.min(), pixels.max()) == (source.header.record["dmin"], source.header.record["dmax"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signed = mrcfile.open(path, permissive=True).data
    assert np.array_equal(pixels, signed.view(np.uint8))


@pytest.mark.parametrize("flags", [0, 1])
def test_imod_says_whether_bytes_are_signed(tmp_path: Path, flags: int) -> None:
    header = raw_header(2, 1, 1, 0)
    header[152:160] = b"IMOD" + struct.pack("<i", flags)
    assert whole(write_raw(tmp_path / "a.mrc", header, b"\x01\xff")).tolist() == [[1, -1 if flags else 255]]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("said_by", ["flag", "label"])
def test_bytes_of_two_pixels_each_give_an_image_of_twice_the_width(tmp_path: Path, said_by: str, order: str) -> None:
    # How SerialEM stored counts of a K2 before there was mode 101.
    pixels = np.random.default_rng(0).integers(0, 16, (5, 8)).astype(np.uint8)
    header = raw_header(4, 5, 1, 0, order=order)
    if said_by == "flag":
        header[152:160] = struct.pack(f"{order}2i", 0x444F4D49, 16)
    else:
        struct.pack_into(f"{order}i", header, 220, 1)
        header[224:275] = b"SerialEMCCD: Dose frac. image, 4 bits packed  r/f 0"
    path = write_raw(tmp_path / "a.mrc", header, (pixels[:, 0::2] | pixels[:, 1::2] << 4).tobytes())
    with MrcMicrograph(path) as source:
        assert np.array_equal(source.read_rows(0, 5), pixels)
        assert source.pixel_size_angstrom == 1.5
        assert source.warnings == ("each byte holds two 4-bit values, as SerialEM wrote them: 8 columns, not 4",)


def test_the_warning_about_unsigned_bytes_says_how_they_were_recognised(tmp_path: Path) -> None:
    header = raw_header(2, 1, 1, 0)
    header[152:160] = b"IMOD" + struct.pack("<i", 0)
    assert read_header(write_raw(tmp_path / "a.mrc", header, b"\x01\x02")).warnings == (
        "mode 0: the bytes are read as unsigned, as IMOD's flags say",
    )
    header = raw_header(2, 1, 1, 0)
    struct.pack_into("<3f", header, 76, 0, 200, 100)
    assert read_header(write_raw(tmp_path / "a.mrc", header, b"\x01\x02")).warnings == (
        "mode 0 with values up to 200: the bytes are read as unsigned, as IMOD wrote them before 2011",
    )


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_only_byte_order_that_fits_is_used_when_the_stamp_is_missing_or_wrong(tmp_path: Path, order: str) -> None:
    pixels = np.arange(12, dtype=f"{order}f4")
    for stamp in (b"\0\0\0\0", b"\x11\x11\0\0" if order == "<" else b"DD\0\0"):
        header = raw_header(4, 3, 1, 2, order=order)
        header[212:216] = stamp
        path = write_raw(tmp_path / "a.mrc", header, pixels.tobytes())
        assert np.array_equal(whole(path).ravel(), np.arange(12))
        assert "machine stamp" in read_header(path).warnings[0]


HOSTILE = {
    "largest sizes": (raw_header(2**31 - 1, 2**31 - 1, 1, 2), "truncated"),
    "largest volume": (raw_header(2**31 - 1, 2**31 - 1, 2**31 - 1, 2), "truncated"),
    "negative": (raw_header(-4, 4, 1, 2), "size is -4 x 4 x 1"),
    "zero": (raw_header(0, 4, 1, 2), "size is 0 x 4 x 1"),
    "huge extension": (raw_header(8, 8, 1, 2, nsymbt=2**31 - 1), "truncated"),
    "negative extension": (raw_header(8, 8, 1, 2, nsymbt=-1024), "extended header of -1024 bytes"),
    "65536 squared": (raw_header(65536, 65536, 1, 2), "17179870208 bytes in all"),
    "complex int16": (raw_header(4, 4, 1, 3), "mode 3 (complex int16: a transform) is not supported"),
    "complex float32": (raw_header(4, 4, 1, 4), "mode 4 (complex float32: a transform) is not supported"),
    "no mode": (raw_header(4, 4, 1, 77), "mode 77 (unknown) is not supported (supported: 0, 1, 2, 6, 12, 101)"),
    "stack": (raw_header(2, 2, 4, 2), "4 sections"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_refused_without_allocation(tmp_path: Path, name: str) -> None:
    header, reason = HOSTILE[name]
    path = write_raw(tmp_path / "a.mrc", header, bytes(64))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError) as caught:
            MrcMicrograph(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reason in str(caught.value)
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (raw_header(2**20, 4, 1, 0), "allowed: up to 131072 a side"),
        (raw_header(4, 4, 1, 0, nsymbt=2**30), "allowed: up to 67108864"),
    ],
)
def test_a_sparse_file_cannot_ask_for_memory(tmp_path: Path, header: bytes, reason: str) -> None:
    path = write_raw(tmp_path / "a.mrc", header)
    os.truncate(path, 1 << 31)
    with pytest.raises(FormatError, match=reason):
        MrcMicrograph(path)


@settings(max_examples=200)
@given(st.binary(max_size=1100), st.booleans())
def test_no_bytes_raise_anything_but_a_finding(payload: bytes, stamped: bool) -> None:
    head = payload[:1024]
    if stamped and len(head) == 1024:
        head = head[:208] + b"MAP DD\0\0" + head[216:]
    seen = examine(head, len(payload))
    assert seen.record is not None or any(finding.severity == "error" for finding in seen.findings)


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 255), value=st.integers(-(2**31), 2**31 - 1))
def test_one_spoilt_word_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, at: int, value: int) -> None:
    header = raw_header(6, 5, 1, 2)
    struct.pack_into("<i", header, 4 * at, value)
    path = write_raw(tmp_path_factory.mktemp("spoilt") / "a.mrc", header, bytes(120))
    try:
        with MrcMicrograph(path) as source:
            source.read_rows(0, source.shape[0])
    except FormatError as error:
        assert str(error).startswith(f"{path}: ")
    validate_mrc(path)


@pytest.mark.parametrize("kept", [0, 1, 512, 1023, 1024, 1025, 1143])
def test_a_truncated_file_is_refused_and_its_size_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes((bytes(raw_header(6, 5, 1, 2)) + bytes(120))[:kept])
    with pytest.raises(FormatError, match=r"empty|only|but the file has"):
        read_header(path)


def test_a_file_cut_while_it_is_read_ends_in_an_error_and_not_in_a_signal(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    write_mrc(path, np.ones((64, 64)))
    with MrcMicrograph(path) as source:
        os.truncate(path, 2000)
        with pytest.raises(FormatError, match=r"changed while reading: it ends at byte 2000, 17408 bytes were there"):
            source.read_rows(0, 64)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mrc")
    for path in (tmp_path, tmp_path / "pipe.mrc"):
        with pytest.raises(InputError, match="a micrograph is a regular file"):
            read_header(path)
    with pytest.raises(MissingInputError, match="no such file"):
        read_header(tmp_path / "none.mrc")
    assert validate_mrc(tmp_path / "none.mrc")[0].severity == "error"


def test_a_closed_micrograph_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    write_mrc(path, np.ones((4, 4)))
    source = MrcMicrograph(path)
    with pytest.raises(ShapeError, match="rows 0 to 5"):
        source.read_rows(0, 5)
    source.close()
    source.close()
    with pytest.raises(CryoplugError, match="closed"):
        source.read_rows(0, 1)


@pytest.mark.parametrize("cell", [0.0, -160.0, float("inf"), float("nan"), 3.6e-43])
def test_an_unset_pixel_size_is_none(tmp_path: Path, cell: float) -> None:
    header = raw_header(6, 5, 1, 2)
    struct.pack_into("<f", header, 40, cell)
    assert read_header(write_raw(tmp_path / "a.mrc", header, bytes(120))).pixel_size_angstrom is None


def test_validation_lists_everything_at_once(tmp_path: Path) -> None:
    header = raw_header(6, 5, 1, 2)
    struct.pack_into("<2f", header, 40, 9.0, 15.0)
    struct.pack_into("<3f", header, 76, 0.0, 1.0, 0.5)
    struct.pack_into("<3i", header, 64, 0, 0, 0)
    struct.pack_into("<i", header, 220, 3)
    pixels = np.arange(30, dtype="<f4").reshape(5, 6)
    findings = validate_mrc(write_raw(tmp_path / "a.mrc", header, pixels.tobytes() + bytes(10)))
    by_field = {finding.field: finding for finding in findings}
    assert "10 bytes follow" in by_field["file"].message
    assert "x 1.5, y 3 A" in by_field["cella"].message
    assert "axis order (0, 0, 0)" in by_field["mapc, mapr, maps"].message
    assert "says 3 labels, 0 hold text" in by_field["nlabl"].message
    assert "header says 1, the pixels say 29" in by_field["dmax"].message
    assert "header says 0.5, the pixels say 14.5" in by_field["dmean"].message


@pytest.mark.parametrize(("value", "message"), [(np.nan, "30 of 30 are NaN"), (4.0, "all finite pixels are 4")])
def test_pixels_that_no_network_can_use_are_an_error(tmp_path: Path, value: float, message: str) -> None:
    path = write_raw(tmp_path / "a.mrc", raw_header(6, 5, 1, 2), np.full(30, value, "<f4").tobytes())
    (finding,) = [finding for finding in validate_mrc(path) if finding.severity == "error"]
    assert (finding.field, message in finding.message) == ("pixels", True)


def test_a_binned_image_with_the_cell_of_the_raw_one_is_noticed(shared_data: Path) -> None:
    (path,) = (shared_data / "micrographs").glob("24dec03a*.mrc")
    assert any(
        "0.79 A is right for a cut-out, 6.32 A for a binned image" in text for text in read_header(path).warnings
    )


class TestMrc(MovieFormatContract):
    spec = MRC
    pixel_size_angstrom = 1.5

    def write_movie(self, path: Path, frames: np.ndarray) -> None:
        with warnings.catch_warnings(), mrcfile.new(path, overwrite=True) as file:
            warnings.simplefilter("ignore")  # of NaN
            file.set_data(frames)
            file.voxel_size = 1.5
            file.set_image_stack()


class TestMrcOfInt16(TestMrc):
    dtype = np.int16
