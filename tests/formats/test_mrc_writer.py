"""Written MRC files are valid, complete, and keep what the micrograph's header said."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryoplug.disk.atomic import atomic_file
from cryoplug.errors import PixelError, ShapeError, UsageError
from cryoplug.formats.mrc import MrcMicrograph, MrcRowWriter, read_header, validate_mrc, write_mrc
from cryoplug.formats.mrc_header import MrcHeader


def image(shape: tuple[int, int] = (37, 23)) -> np.ndarray:
    return np.random.default_rng(0).normal(6802, 8.9, shape).astype(np.float32)


def fei2_micrograph(path: Path, *, labels: int = 2, byte_order: str = "<", mode: str = "uint16") -> MrcHeader:
    """What an EPU camera writes: uint16 with 768 or more bytes of FEI2 metadata."""
    pixels = np.random.default_rng(1).integers(0, 50, (37, 23)).astype(mode)
    with mrcfile.new(path) as file:
        file.set_data(pixels)
        file.voxel_size = 0.667
        extended = np.random.default_rng(2).integers(0, 256, 888).astype(np.uint8)
        file.set_extended_header(extended.view("V888"))
        file.header.exttyp = b"FEI2"
        file.header.nxstart = 3
        file.header.origin.x = 7.5
        for index in range(labels - 1):
            file.add_label(f"label {index}")
    if byte_order == ">":
        raw = path.read_bytes()
        header = np.frombuffer(raw[:1024], mrcfile.dtypes.HEADER_DTYPE)[0]
        swapped = np.array(header).astype(mrcfile.dtypes.HEADER_DTYPE.newbyteorder(">"))
        swapped["machst"] = np.frombuffer(b"\x11\x11\0\0", np.uint8)
        data = np.frombuffer(raw[1024 + 888 :], pixels.dtype).astype(pixels.dtype.newbyteorder(">"))
        path.write_bytes(swapped.tobytes() + raw[1024 : 1024 + 888] + data.tobytes())
    return read_header(path)


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("mode", ["uint16", "int8", "float16", "float32"])
def test_header_and_extended_header_are_carried_over(tmp_path: Path, byte_order: str, mode: str) -> None:
    template = fei2_micrograph(tmp_path / "raw.mrc", byte_order=byte_order, mode=mode)
    out = tmp_path / "out.mrc"
    write_mrc(out, image(), template=template, label="cryoplug 1.0 cryo_cnn 0123abcd")
    assert mrcfile.validate(out)
    assert not [finding for finding in validate_mrc(out) if finding.severity != "note"]
    with mrcfile.open(out) as file:
        assert file.data.dtype == np.float32
        assert np.array_equal(file.data, image())
        assert file.voxel_size.x == pytest.approx(0.667, rel=1e-6)
        assert bytes(file.extended_header.tobytes()) == template.extended_header
        assert (bytes(file.header.exttyp), int(file.header.nversion)) == (b"FEI2", 20141)
        assert (int(file.header.nxstart), float(file.header.origin.x)) == (3, 7.5)
        labels = file.get_labels()
    assert labels[-1] == "cryoplug 1.0 cryo_cnn 0123abcd"
    assert "label 0" in labels


def test_statistics_are_those_of_the_pixels_for_any_bands(tmp_path: Path) -> None:
    pixels = image()
    for band_rows in (1, 5, 100):
        with atomic_file(tmp_path / "out.mrc") as stream:
            writer = MrcRowWriter(stream, pixels.shape, template=None, pixel_size_angstrom=1.5, label="x")
            for start in range(0, 37, band_rows):
                writer.write_rows(pixels[start : start + band_rows])
            writer.finish()
        header = read_header(tmp_path / "out.mrc")
        assert header.pixel_size_angstrom == 1.5
        assert (header.record["dmin"], header.record["dmax"]) == (pixels.min(), pixels.max())
        assert header.record["dmean"] == pytest.approx(pixels.mean(dtype=np.float64), rel=1e-6)
        assert header.record["rms"] == pytest.approx(pixels.std(dtype=np.float64), rel=1e-6)
        assert mrcfile.validate(tmp_path / "out.mrc")


def test_a_file_without_template_is_valid_and_leaves_the_pixel_size_unset(tmp_path: Path) -> None:
    write_mrc(tmp_path / "out.mrc", image())
    assert mrcfile.validate(tmp_path / "out.mrc")
    with MrcMicrograph(tmp_path / "out.mrc") as source:
        assert source.pixel_size_angstrom is None
        assert np.array_equal(source.read_rows(0, 37), image())


def test_a_new_pixel_size_replaces_that_of_the_template(tmp_path: Path) -> None:
    template = fei2_micrograph(tmp_path / "raw.mrc")
    write_mrc(tmp_path / "out.mrc", image(), template=template, pixel_size_angstrom=1.25)
    assert read_header(tmp_path / "out.mrc").pixel_size_angstrom == 1.25
    # That of the template itself must not be rounded through cell / mx * mx.
    write_mrc(tmp_path / "out.mrc", image(), template=template, pixel_size_angstrom=template.pixel_size_angstrom)
    assert read_header(tmp_path / "out.mrc").record["cella"] == template.record["cella"]


def test_a_header_with_two_pixel_sizes_comes_out_with_the_one_that_is_used(tmp_path: Path) -> None:
    write_mrc(tmp_path / "raw.mrc", image(), pixel_size_angstrom=2.6)
    with mrcfile.open(tmp_path / "raw.mrc", "r+") as file:
        file.header.cella.y *= 2
    template = read_header(tmp_path / "raw.mrc")
    for size in (template.pixel_size_angstrom, 1.3):
        write_mrc(tmp_path / "out.mrc", image(), template=template, pixel_size_angstrom=size)
        with mrcfile.open(tmp_path / "out.mrc", header_only=True) as file:
            assert (float(file.voxel_size.x), float(file.voxel_size.y)) == pytest.approx((size, size))
    # Where nobody knows one, the header stays as it is.
    write_mrc(tmp_path / "out.mrc", image(), template=template)
    assert read_header(tmp_path / "out.mrc").record["cella"] == template.record["cella"]


def test_the_size_that_is_used_is_written_also_over_other_samples(tmp_path: Path) -> None:
    write_mrc(tmp_path / "raw.mrc", image(), pixel_size_angstrom=1.0)
    with mrcfile.open(tmp_path / "raw.mrc", "r+") as file:
        file.header.mx, file.header.my = 3, 7
    write_mrc(tmp_path / "out.mrc", image(), template=read_header(tmp_path / "raw.mrc"), pixel_size_angstrom=2.6)
    with mrcfile.open(tmp_path / "out.mrc", header_only=True) as file:
        assert (float(file.voxel_size.x), float(file.voxel_size.y)) == pytest.approx((2.6, 2.6))


def test_the_last_of_ten_labels_gives_way(tmp_path: Path) -> None:
    template = fei2_micrograph(tmp_path / "raw.mrc", labels=10)
    write_mrc(tmp_path / "out.mrc", image(), template=template, label="y" * 200)
    with mrcfile.open(tmp_path / "out.mrc") as file:
        labels = file.get_labels()
    assert len(labels) == 10
    assert labels[-1] == ("cryoplug " + "y" * 200)[:80]
    assert mrcfile.validate(tmp_path / "out.mrc")


def test_what_a_damaged_template_says_is_made_valid(tmp_path: Path, shared_data: Path) -> None:
    for path in (
        shared_data / "odd_mrc" / "noMAP_mode0_mrc2D.mrc",
        shared_data / "odd_mrc" / "singleImage.mrc",
        shared_data / "micrographs" / "Ucsf_stack_1142_DW.mrc",
    ):
        template = read_header(path)
        write_mrc(tmp_path / "out.mrc", image((template.ny, template.nx)), template=template)
        assert mrcfile.validate(tmp_path / "out.mrc")
        assert read_header(tmp_path / "out.mrc").pixel_size_angstrom == template.pixel_size_angstrom


@pytest.mark.parametrize(("cell", "samples"), [(3.6e-43, 23), (1e12, 23), (-30.0, 23), (np.nan, 23), (30.0, 0)])
def test_a_cell_that_gives_no_pixel_size_is_not_carried_over(tmp_path: Path, cell: float, samples: int) -> None:
    write_mrc(tmp_path / "in.mrc", image())
    raw = bytearray((tmp_path / "in.mrc").read_bytes())
    struct.pack_into("<3i3f", raw, 28, samples, samples, 1, cell, cell, cell)
    (tmp_path / "in.mrc").write_bytes(raw)
    template = read_header(tmp_path / "in.mrc")
    assert template.pixel_size_angstrom is None
    write_mrc(tmp_path / "out.mrc", image(), template=template)
    with mrcfile.open(tmp_path / "out.mrc") as peer:
        assert (peer.voxel_size.x, peer.voxel_size.y) == (0, 0)


def test_pixels_that_are_not_finite_leave_the_statistics_undetermined(tmp_path: Path) -> None:
    pixels = image()
    pixels[3, 3] = np.nan
    write_mrc(tmp_path / "out.mrc", pixels)
    record = read_header(tmp_path / "out.mrc").record
    assert record["dmax"] < record["dmin"]
    assert record["dmean"] < record["dmax"]
    assert record["rms"] < 0


def test_missing_and_surplus_rows_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    out = tmp_path / "out.mrc"
    with pytest.raises(ShapeError, match="3 of 37 rows were written"), atomic_file(out) as stream:
        writer = MrcRowWriter(stream, (37, 23), path=out)
        writer.write_rows(image()[:3])
        writer.finish()
    assert list(tmp_path.iterdir()) == []
    writer = MrcRowWriter(io.BytesIO(), (2, 23), path=out)
    with pytest.raises(ShapeError, match=r"rows of shape \(3, 23\) after 0 rows"):
        writer.write_rows(image()[:3])
    with pytest.raises(ShapeError, match=r"rows of shape \(1, 22\)"):
        writer.write_rows(image()[:1, :22])


def test_impossible_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=r"a micrograph is \(y, x\)"):
        write_mrc(tmp_path / "out.mrc", np.zeros((2, 2, 2)))
    with pytest.raises(ShapeError, match="at least one pixel"):
        write_mrc(tmp_path / "out.mrc", np.zeros((0, 2)))
    with pytest.raises(UsageError, match="pixel size -1"):
        write_mrc(tmp_path / "out.mrc", image(), pixel_size_angstrom=-1)
    assert list(tmp_path.iterdir()) == []


def test_float16_stores_mode_12_and_the_statistics_of_what_is_stored(tmp_path: Path) -> None:
    out = tmp_path / "out.mrc"
    template = fei2_micrograph(tmp_path / "raw.mrc", byte_order=">")
    write_mrc(out, image(), template=template, dtype="float16")
    stored = image().astype(np.float16)
    with mrcfile.open(out) as file:
        assert int(file.header.mode) == 12 and np.array_equal(file.data, stored)
        assert file.extended_header.tobytes() == template.extended_header
        assert float(file.header.dmin) == stored.min() != image().min()
        assert float(file.header.rms) == pytest.approx(stored.std(dtype=np.float64), rel=1e-6)
    assert out.stat().st_size == 1024 + 888 + 2 * stored.size
    assert not [finding for finding in validate_mrc(out) if finding.severity != "note"]


def test_float16_tells_how_much_it_rounded(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "out.mrc") as stream:
        writer = MrcRowWriter(stream, (37, 23), path=tmp_path / "out.mrc", dtype="float16")
        writer.write_rows(image()[:20])
        writer.write_rows(image()[20:])
        writer.finish()
    wanted = (image().astype(np.float16).astype(np.float64) - image()).std()
    assert writer.rounding_rms == pytest.approx(wanted, rel=0.02)
    assert writer.std == pytest.approx(image().astype(np.float16).std(dtype=np.float64), rel=1e-6)


@pytest.mark.parametrize("value", [65505.0, -1e9])
def test_a_value_beyond_float16_is_refused_with_the_value_and_leaves_no_file(tmp_path: Path, value: float) -> None:
    pixels = image()
    pixels[5, 5] = value
    with pytest.raises(
        PixelError,
        match=rf"a pixel of {re.escape(format(abs(value), 'g'))} does not fit into float16 \(allowed: up to 65504\)",
    ):
        write_mrc(tmp_path / "out.mrc", pixels, dtype="float16")
    assert list(tmp_path.iterdir()) == []
    pixels[5, 5] = np.copysign(65504.0, value)
    write_mrc(tmp_path / "out.mrc", pixels, dtype="float16")


def test_another_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'int16'; allowed: float32, float16"):
        write_mrc(tmp_path / "out.mrc", image(), dtype="int16")
