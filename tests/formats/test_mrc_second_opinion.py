"""What is said of mrcfile is what mrcfile does."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryoplug.cli.main import run
from cryoplug.formats.mrc import MrcMicrograph
from cryoplug.formats.mrc_header import examine
from cryoplug.formats.mrc_second_opinion import second_opinion


def opinion(path: Path) -> list[str]:
    head, size_bytes = path.read_bytes()[:1024], path.stat().st_size
    return second_opinion(head, size_bytes, examine(head, size_bytes))


def written(path: Path, dtype: str = "f4") -> bytearray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mrcfile.new(path, overwrite=True) as file:
            file.set_data(np.arange(48, dtype=dtype).reshape(6, 8))
            file.voxel_size = 1.5
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("dtype", ["i1", "i2", "f4", "u2", "f2", ">f4", ">u2"])
def test_a_sound_file_gives_nothing_to_say(tmp_path: Path, dtype: str) -> None:
    written(tmp_path / "a.mrc", dtype)
    assert opinion(tmp_path / "a.mrc") == []


def no_stamp(content: bytearray) -> None:
    content[208:216] = bytes(8)


def other_machine(content: bytearray) -> None:
    content[212:216] = b"\x11\x11\0\0"


def stale(content: bytearray) -> None:
    content[92:96] = struct.pack("<i", 1024)


def half_a_byte(content: bytearray) -> None:
    content[0:4], content[12:16] = struct.pack("<i", 64), struct.pack("<i", 101)


@pytest.mark.parametrize("spoil", [no_stamp, other_machine, stale, half_a_byte])
def test_what_it_refuses_is_said(tmp_path: Path, spoil: Callable[[bytearray], None]) -> None:
    content = written(tmp_path / "a.mrc")
    spoil(content)
    (tmp_path / "a.mrc").write_bytes(content)
    MrcMicrograph(tmp_path / "a.mrc").close()
    with pytest.raises(ValueError, match=r"."), mrcfile.open(tmp_path / "a.mrc"):
        pass
    (said,) = opinion(tmp_path / "a.mrc")
    assert said.startswith("mrcfile and the tools built on it refuse this file (")


def test_bytes_that_imod_wrote_unsigned_are_negative_there(tmp_path: Path) -> None:
    content = written(tmp_path / "a.mrc", "i1")
    content[152:160] = b"IMOD" + bytes(4)
    content[-1] = 200
    (tmp_path / "a.mrc").write_bytes(content)
    assert mrcfile.read(tmp_path / "a.mrc").min() == 200 - 256
    assert ["read the bytes as signed" in said for said in opinion(tmp_path / "a.mrc")] == [True]


def test_two_values_in_a_byte_are_one_there(tmp_path: Path) -> None:
    content = written(tmp_path / "a.mrc", "i1")
    content[152:160] = b"IMOD" + struct.pack("<i", 17)
    (tmp_path / "a.mrc").write_bytes(content)
    (said,) = opinion(tmp_path / "a.mrc")
    assert said.endswith("read 8 x 6 x 1 int8, not 16 x 6 x 1 4-bit integers")


@pytest.mark.parametrize("length", [-12.0, 1e-43, 0.0])
def test_a_pixel_size_that_is_none_is_one_there(tmp_path: Path, length: float) -> None:
    content = written(tmp_path / "a.mrc")
    content[40:44] = struct.pack("<f", length)
    (tmp_path / "a.mrc").write_bytes(content)
    with mrcfile.open(tmp_path / "a.mrc", header_only=True) as file:
        theirs = float(file.voxel_size.x)
    assert [f"take {theirs:.4g} A for its pixel size" in said for said in opinion(tmp_path / "a.mrc")] == [True] * (
        theirs != 0
    )


def test_inspect_tells_it_and_does_not_call_it_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = written(tmp_path / "a.mrc")
    half_a_byte(content)
    content[28:32], content[40:44] = struct.pack("<i", 64), struct.pack("<f", 96.0)
    (tmp_path / "a.mrc").write_bytes(content)
    for words in (["--quick"], []):
        run(["inspect", str(tmp_path / "a.mrc"), *words])
        assert "NOTE mrcfile: mrcfile and the tools built on it refuse this file" in capsys.readouterr().out


def test_what_cryoplug_refuses_is_not_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(written(path)[:1100])
    assert opinion(path) == []
    path.write_bytes(b"no file of this kind" * 100)
    assert opinion(path) == []
