"""STAR files and cryoSPARC datasets that are endless in one direction or another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

STAR = b"data_micrographs\nloop_\n_rlnMicrographName #1\n"


# Made when they are needed: 300 MB in all.
@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (lambda: STAR + b"a " * (25 << 20), "line 4: more than 1048576 bytes"),
        (lambda: b"data_" + b"x" * (50 << 20), "line 1: more than 1048576 bytes"),
        (lambda: STAR + b"a b c d\n", "4 values"),
        (lambda: STAR + b"a.mrc\n\0\n", "binary file"),
        (lambda: STAR + b"a.mrc \n" * 20_000 + b"\0", "NUL"),
        (lambda: b"data_\nloop_\n" + b"".join(b"_c%d\n" % i for i in range(1_000_000)), "more than 1000 columns"),
        (lambda: b"".join(b"data_%d\n" % i for i in range(1_000_000)), "more than 20000 blocks"),
        (lambda: STAR + b"\n" * (50 << 20), "without a value"),
        (lambda: STAR + b"#\n" * (25 << 20), "without a value"),
        (lambda: STAR + b"'" + b"a" * 1_000_000 + b"\n", "a quote that never ends"),
        (lambda: STAR + b"'a" * 500_000 + b"\n", "a quote that never ends"),
        (lambda: b"PK\x03\x04" + b"\xff" * (50 << 20), "line 1"),
        (lambda: b"", "no data_ block"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_a_star_file_without_end_is_refused(
    tmp_path: Path, refused, payload: Callable[[], bytes], message: str
) -> None:
    path = tmp_path / "a.star"
    path.write_bytes(payload())
    assert message in refused("star", path)


def cs_file(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header.encode() + data


def cs_header(descr: str, count: int) -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': ({count},), }}\n"


PATHS = "[('micrograph_blob/path', 'S8')]"


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (cs_file(cs_header(PATHS, 1 << 60)), "need 9223372036854775"),
        (cs_file(cs_header("[" + "('a', 'f4')," * 100_000 + "]", 1)), "the header claims"),
        (cs_file(cs_header("[" + "('a', 'f4')," * 10_000 + "]", 1)), "damaged"),
        (cs_file(cs_header("[('micrograph_blob/path', '|O')]", 1), bytes(8)), "Python objects"),
        (cs_file(cs_header("[('micrograph_blob/path', 'S2147483647')]", 1)), "allowed: up to 1048576"),
        (cs_file("(" * 60_000), "damaged"),
        (cs_file("9" * 60_000), "damaged"),
        (cs_file("__import__('os').system('true')"), "damaged"),
        (b"\x93NUMPY\x02\x00" + b"\xff\xff\xff\xff", "the header claims 4294967295 bytes"),
        (b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.", "not a cryoSPARC dataset"),
    ],
    ids=["rows", "columns", "twice", "objects", "wide", "deep", "digits", "code", "length", "pickle"],
)
def test_a_dataset_that_lies_is_refused(tmp_path: Path, refused, payload: bytes, message: str) -> None:
    path = tmp_path / "a.cs"
    path.write_bytes(payload)
    assert message in refused("cs", path)


def test_a_sparse_dataset_of_a_thousand_million_rows_is_refused(tmp_path: Path, refused) -> None:
    path = tmp_path / "a.cs"
    path.write_bytes(cs_file(cs_header(PATHS, 1 << 30)))
    with path.open("r+b") as stream:
        stream.truncate(1 << 34)
    assert "row 1 names no file" in refused("cs", path)


def test_a_pickled_array_is_refused(tmp_path: Path, refused) -> None:
    path = tmp_path / "a.cs"
    with path.open("wb") as stream:
        np.save(stream, np.array([{"a": 1}], object), allow_pickle=True)
    refused("cs", path)
