"""What the microscope wrote into the extended header: shown, and used where the cell says nothing."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from mrcfile.dtypes import get_ext_header_dtype

from cryoplug.formats.mrc import read_header, write_mrc
from cryoplug.formats.mrc_extended import Acquisition, pixel_size_of_file, read_acquisition
from cryoplug.formats.registry import open_micrograph, open_movie
from cryoplug.workflows.inspect import inspect_path

ALL_SET = 0xFFFFCFFF


def fei(kind: bytes = b"FEI1", mask: int = ALL_SET, order: str = "<", **values: float) -> bytes:
    record = np.zeros(1, get_ext_header_dtype(kind, order))
    record["Metadata size"] = record.dtype.itemsize
    record["Bitmask 1"] = mask
    usual = {"HT": 3e5, "Dose": 4.1e21, "Pixel size X": 0.854e-10, "Applied defocus": -8e-7, "Alpha tilt": 0.25}
    for name, value in {**usual, **values}.items():
        record[name] = value
    record["Microscope type"], record["Camera name"] = b"TITAN52336320", b"EF-CCD"
    return record.tobytes()


def written(path: Path, extended: bytes, *, kind: bytes = b"FEI1", cell: float | None = None) -> Path:
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(np.random.default_rng(0).normal(9, 1, (32, 40)).astype(np.float32))
        file.set_extended_header(np.frombuffer(extended, "V1"))
        file.header.exttyp = kind
        file.voxel_size = cell or 0
    return path


@pytest.mark.parametrize("kind", [b"FEI1", b"FEI2"])
@pytest.mark.parametrize("padding", [0, 4096])
def test_a_record_of_the_microscope_is_read(tmp_path: Path, kind: bytes, padding: int) -> None:
    path = written(tmp_path / "m.mrc", fei(kind) + bytes(padding), kind=kind)
    found = read_acquisition(read_header(path))
    assert found is not None
    assert (found.microscope, found.camera) == ("TITAN52336320", "EF-CCD")
    numbers = (
        found.pixel_size_angstrom,
        found.voltage_kv,
        found.dose_e_per_angstrom2,
        found.defocus_um,
        found.tilt_degrees,
    )
    assert numbers == pytest.approx((0.854, 300, 41, 0.8, 0.25))


@pytest.mark.parametrize(("cell", "expected"), [(None, 0.854), (1.0, 0.854), (0.83, 0.83)])
def test_it_gives_the_pixel_size_where_the_cell_does_not(tmp_path: Path, cell: float | None, expected: float) -> None:
    path = written(tmp_path / "m.mrc", fei(), cell=cell)
    with open_micrograph(path) as source, open_movie(path) as movie:
        assert source.pixel_size_angstrom == movie.pixel_size_angstrom == pytest.approx(expected)
        assert any("by the microscope's own record" in text for text in source.warnings) is (expected == 0.854)
    shown = inspect_path(path)
    assert shown.summary["pixel_size_angstrom"] == pytest.approx(expected)
    assert shown.summary["acquisition"]["voltage_kv"] == 300


@pytest.mark.parametrize(
    ("extended", "kind", "expected"),
    [
        (fei(mask=0), b"FEI1", Acquisition(microscope="TITAN52336320", camera="EF-CCD")),
        (fei()[:-1], b"FEI1", None),
        (b"", b"FEI1", None),
        (fei(), b"AGAR", None),
        (bytes(len(fei())), b"FEI1", None),
        (fei(b"FEI2"), b"FEI1", None),
    ],
)
def test_what_is_no_record_or_not_set_says_nothing(
    tmp_path: Path, extended: bytes, kind: bytes, expected: Acquisition | None
) -> None:
    path = written(tmp_path / "m.mrc", extended, kind=kind)
    header = read_header(path)
    assert read_acquisition(header) == expected
    assert pixel_size_of_file(header) == (None, "")
    with open_micrograph(path) as source:
        assert source.pixel_size_angstrom is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.0, 1e30, 1e-30])
def test_numbers_without_sense_are_left_out(tmp_path: Path, value: float) -> None:
    names = ("Pixel size X", "HT", "Dose")
    found = read_acquisition(read_header(written(tmp_path / "m.mrc", fei(**dict.fromkeys(names, value)))))
    assert found is not None and found.pixel_size_angstrom is None
    assert found.voltage_kv is None or 0 < found.voltage_kv < np.inf


def test_the_record_is_carried_over_and_the_cell_filled_in(tmp_path: Path) -> None:
    path = written(tmp_path / "m.mrc", fei())
    with open_micrograph(path) as source:
        size = source.pixel_size_angstrom
        write_mrc(tmp_path / "out.mrc", source.read_rows(0, 32), template=read_header(path), pixel_size_angstrom=size)
    after = read_header(tmp_path / "out.mrc")
    assert after.pixel_size_angstrom == pytest.approx(0.854)
    assert read_acquisition(after) == read_acquisition(read_header(path))
