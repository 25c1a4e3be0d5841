"""The format of a file is found by name and by content, and what is no micrograph is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoplug import extensions
from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.errors import FormatError, InputError, MissingInputError
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.registry import MRC, FormatSpec, format_of, formats, open_micrograph

TOY = FormatSpec(
    id="toy",
    description="a format of a plugin",
    extensions=(".toy",),
    open=lambda path: ArrayMicrograph(np.ones((2, 3)), path),
    validate=lambda path: [],
    sniff=lambda head: head.startswith(b"TOY"),
)


@pytest.fixture
def toy_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_all(group: str, **_: object) -> dict[str, object]:
        return {"toy": TOY, "fake": FormatSpec("mrc", "", (), TOY.open, TOY.validate, TOY.sniff)}

    monkeypatch.setattr(extensions, "load_all", load_all)


@pytest.mark.parametrize("name", ["a.mrc", "A.MRC", "a.map", "noending", "a.tif"])
def test_an_mrc_is_opened_under_any_name(tmp_path: Path, name: str) -> None:
    write_mrc(tmp_path / name, np.eye(5))
    with open_micrograph(str(tmp_path / name)) as source:
        assert source.shape == (5, 5)
        assert source.path == tmp_path / name


@pytest.mark.usefixtures("toy_plugin")
def test_a_plugin_adds_a_format_and_cannot_replace_one(tmp_path: Path) -> None:
    assert set(formats()) - {"toy"} >= {"mrc", "mrc-compressed", "tiff", "eer", "dm", "ser"}
    assert list(formats())[-1] == "toy" and formats()["mrc"] is MRC
    (tmp_path / "misnamed.mrc").write_bytes(b"TOY pixels")
    with open_micrograph(tmp_path / "misnamed.mrc") as source:
        assert source.shape == (2, 3)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"\x1f\x8b\x08", "damaged or incomplete"),
        (b"BZh91AY", "damaged or incomplete"),
        (b"II*\x00", "a TIFF file that cannot be decoded"),
        (b"\x89HDF\r\n\x1a\n", "this is an HDF5 file"),
        (b"\x93NUMPY", "this is a numpy array"),
        (b"7z\xbc\xaf\x27\x1c", "this is a 7-zip file"),
        (b"\x04\x22\x4d\x18", "this is an lz4 file"),
        (b"\xff\xd8\xff\xe0", "this is a JPEG picture"),
        (b"SIMPLE  =                    T", "this is a FITS image"),
        (b"only text\n", "this is a text file"),
        (b"", "the file is empty"),
    ],
)
@pytest.mark.parametrize("name", ["a.mrc", "a.dat"])
def test_another_kind_of_file_is_named(tmp_path: Path, name: str, start: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(start)
    with pytest.raises(FormatError, match=message):
        open_micrograph(tmp_path / name)


def test_a_folder_a_missing_file_and_an_impossible_name_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this is a folder"):
        format_of(tmp_path)
    for path in (tmp_path / "none.mrc", tmp_path / "a\0b.mrc"):
        with pytest.raises(MissingInputError):
            open_micrograph(path)
    (tmp_path / "file").touch()
    with pytest.raises(MissingInputError, match="no such file"):
        open_micrograph(tmp_path / "file" / "below.mrc")


def test_every_odd_real_file_is_opened_or_refused_by_name(shared_data: Path) -> None:
    opened = []
    for path in sorted((shared_data / "odd_mrc").iterdir()):
        try:
            with open_micrograph(path) as source:
                source.read_rows(0, source.shape[0])
                opened.append(path.name)
        except FormatError as error:
            assert str(error).startswith(f"{path}: ")
    assert opened == ["noMAP_mode0_mrc2D.mrc", "singleImage.mrc"]
