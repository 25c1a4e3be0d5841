"""cryoSPARC datasets: what they list is read, what is damaged or hostile is refused before anything is allocated."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryoplug.errors import FormatError, InputError, MissingInputError
from cryoplug.formats.cs import CsImage, cs_images

MICROGRAPHS = [("uid", "<u8"), ("micrograph_blob/path", "S40"), ("micrograph_blob/psize_A", "<f4")]


def save(path: Path, descr: list[Any], rows: list[Any]) -> Path:
    with path.open("wb") as stream:
        np.save(stream, np.array(rows, dtype=descr), allow_pickle=False)
    return path


def npy(header: str, payload: bytes = b"", *, version: tuple[int, int] = (1, 0), length: int | None = None) -> bytes:
    width = "<H" if version == (1, 0) else "<I"
    size = struct.pack(width, len(header) if length is None else length)
    return b"\x93NUMPY" + bytes(version) + size + header.encode("latin-1") + payload


def test_micrographs_have_paths_and_pixel_sizes(tmp_path: Path) -> None:
    rows = [(1, b"J3/motioncorrected/a.mrc", 1.25), (2, b">J1/imported/b.mrc", 0.0)]
    path = save(tmp_path / "exposures.cs", MICROGRAPHS, rows)
    assert cs_images(path) == [
        CsImage("J3/motioncorrected/a.mrc", None, 1.25, False),
        CsImage("J1/imported/b.mrc", None, None, True),
    ]


def test_movies_are_listed_when_asked_for(tmp_path: Path) -> None:
    descr = [*MICROGRAPHS, ("movie_blob/path", "U30"), ("movie_blob/psize_A", "<f4")]
    path = save(tmp_path / "e.cs", descr, [(1, b"a.mrc", 2.0, "J1/imported/é.tif", 0.5)])
    assert cs_images(path, "movies") == [CsImage("J1/imported/é.tif", None, 0.5, False)]
    assert cs_images(path, "either")[0].name == "a.mrc"


def test_particles_are_sections_of_stacks_and_count_from_one(shared_data: Path) -> None:
    images = cs_images(shared_data / "cs" / "empiar_10076_7.cs")
    assert [(item.name, item.section) for item in images] == [("empiar_10076_7.mrc", i) for i in range(1, 8)]
    assert images[0].pixel_size_angstrom == pytest.approx(1.31, abs=1e-5)


def test_particles_with_their_micrographs_give_the_micrographs(tmp_path: Path) -> None:
    descr = [("blob/path", "S9"), ("blob/idx", "<u4"), ("location/micrograph_path", "S9")]
    path = save(tmp_path / "p.cs", descr, [(b"s.mrc", 4, b"m.mrc"), (b"s.mrc", 5, b"m.mrc")])
    assert [(item.name, item.section) for item in cs_images(path)] == [("m.mrc", None)] * 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("4k_dataset.cs", "has no rows (0 of 106 columns)"),
        ("J519_passthrough_particles_class_3.cs", "not a cryoSPARC dataset (it begins with"),
    ],
)
def test_real_datasets_that_list_nothing_are_refused_by_name(name: str, message: str, shared_data: Path) -> None:
    with pytest.raises(FormatError) as caught:
        cs_images(shared_data / "cs" / name)
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_bytes_beyond_utf8_in_a_path_survive(tmp_path: Path) -> None:
    path = save(tmp_path / "e.cs", MICROGRAPHS, [(1, b"prot\xe9ine.mrc", 1.0)])
    assert cs_images(path)[0].name.encode("utf-8", "surrogateescape") == b"prot\xe9ine.mrc"


def test_rows_beyond_one_chunk_are_all_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryoplug.formats.cs._CHUNK_BYTES", 100)
    path = save(tmp_path / "e.cs", MICROGRAPHS, [(i, b"%d.mrc" % i, i + 1) for i in range(11)])
    assert [item.name for item in cs_images(path)] == [f"{i}.mrc" for i in range(11)]
    assert [item.pixel_size_angstrom for item in cs_images(path)] == [i + 1 for i in range(11)]


GOOD = "{'descr': [('micrograph_blob/path', '|S9')], 'fortran_order': False, 'shape': (%s,), }"


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "not a cryoSPARC dataset"),
        (b"\x93NUM", "not a cryoSPARC dataset"),
        (b"\x95CSDAT" + bytes(100), "a compressed cryoSPARC dataset is not supported"),
        (npy(GOOD % 1, version=(9, 9)), "NPY version 9.9"),
        (npy(GOOD % 1, length=60000), "the header claims 60000 bytes; allowed here: 85"),
        (npy(GOOD % 1, version=(2, 0), length=1 << 31), "the header claims 2147483648 bytes"),
        (npy(GOOD % 1), "1 rows of 9 bytes need"),
        (npy(GOOD % 10**18, bytes(90)), "1000000000000000000 rows of 9 bytes need"),
        (npy(GOOD % "-1", bytes(90)), "the header is damaged"),
        (npy(GOOD % "1, 9", bytes(90)), "an array of shape (1, 9)"),
        (npy(GOOD % "True", bytes(90)), "an array of shape (True,)"),
        (npy("[" * 5000 + "]" * 5000), "the header is damaged"),
        (npy("-" * 60000 + "1"), "the header is damaged"),
        (npy("__import__('os').system('true')"), "the header is damaged"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", bytes(4)), "an array without named columns"),
        (npy("{'descr': [('a', '|V0')], 'shape': (9999999999,)}"), "an array without named columns"),
        (npy("{'descr': [('a', '<f4', (4000000000, 4000000000))], 'shape': (1,)}"), "the header is damaged"),
        (npy("{'descr': [('blob/path', '|O')], 'shape': (1,)}", bytes(8)), "holds Python objects"),
        (npy("{'descr': [('blob/path', '|S2', (3,))], 'shape': (1,)}", bytes(6)), "one value a row is allowed"),
        (npy(GOOD % 1, bytes(9)), "row 1 names no file in micrograph_blob/path ('')"),
        (npy("{'descr': [('uid', '<u8'), ('ctf/df1_A', '<f4')], 'shape': (1,)}", bytes(12)), "it has: ctf, uid"),
        (npy("{'shape': (1,)}"), "the header is damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_and_hostile_files_are_refused_at_once(payload: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.cs"
    path.write_bytes(payload)
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(FormatError) as caught:
        cs_images(path)
    assert time.process_time() - began < 1
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path / "sprung").touch, ()

    array = np.empty(1, dtype=[("blob/path", "O")])
    array[0] = (Trap(),)
    np.save(tmp_path / "trap.npy", array, allow_pickle=True)
    (tmp_path / "trap.npy").rename(tmp_path / "trap.cs")
    with pytest.raises(FormatError, match=r"trap\.cs: holds Python objects, which are never loaded"):
        cs_images(tmp_path / "trap.cs")
    assert not (tmp_path / "sprung").exists()


def test_a_place_in_a_stack_is_a_whole_number(tmp_path: Path) -> None:
    path = save(tmp_path / "p.cs", [("blob/path", "S5"), ("blob/idx", "<i4")], [(b"s.mrc", -1)])
    with pytest.raises(FormatError, match="the place -1 in a stack; allowed: whole numbers from 0"):
        cs_images(path)


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="there is no such file"):
        cs_images(tmp_path / "none.cs")
    with pytest.raises(InputError, match="this is not a regular file"):
        cs_images(tmp_path)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_change_of_a_dataset_is_read_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([(1, b"a.mrc", 1.5), (2, b"b.mrc", 1.5)], dtype=MICROGRAPHS), allow_pickle=False)
    payload = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "fuzzed.cs"
    path.write_bytes(payload[: data.draw(st.integers(0, len(payload)))])
    try:
        images = cs_images(path)
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert all(image.name for image in images)
