"""DataFrames of STAR files, tables made from nothing, and what starfile makes of odd files."""

from __future__ import annotations

import os
from pathlib import Path

import pandas
import pytest
import starfile

import cryoplug
from cryoplug.errors import FormatError
from cryoplug.formats.star import format_star, parse_star, read_star
from cryoplug.formats.star_frames import second_opinion, star_frames, star_from_frames, star_from_tables
from cryoplug.workflows.inspect import inspect_path

TEXT = """
data_optics

_rlnOpticsGroup 1
_rlnVoltage 300.000000

data_micrographs

loop_
_rlnMicrographName #1
_rlnDefocusU #2
_rlnNote #3
001 10000.50 1
{name} 1e4 x
"""


def star(name: str = "b.mrc", path: str = "x.star") -> cryoplug.formats.star.StarFile:  # type: ignore[name-defined]
    return parse_star(TEXT.format(name=name), Path(path))


def test_numbers_become_numbers_and_names_stay_names() -> None:
    frames = star_frames(star())
    assert list(frames) == ["optics", "micrographs"]
    table = frames["micrographs"]
    assert table["rlnDefocusU"].tolist() == [10000.5, 10000.0]
    assert table["rlnMicrographName"].tolist() == ["001", "b.mrc"]
    assert table["rlnNote"].tolist() == ["1", "x"]
    assert frames["optics"]["rlnVoltage"].tolist() == [300.0]


def test_frames_go_there_and_back(tmp_path: Path) -> None:
    names = ["it's.mrc", "a b.mrc", "c#1.mrc", ""]
    frames = {
        "optics": pandas.DataFrame({"rlnOpticsGroup": [1], "rlnVoltage": [300.0]}),
        "micrographs": pandas.DataFrame({"rlnMicrographName": names, "rlnDefocusU": [1.5, 2.0, -3.25, 0.0]}),
    }
    made = star_from_frames(frames, tmp_path / "x.star")
    assert made.blocks[1].column("rlnDefocusU") == ["1.500000", "2.000000", "-3.250000", "0.000000"]
    assert [block.preamble for block in made.blocks] == [["# version 30001"]] * 2
    cryoplug.write_star(tmp_path / "x.star", made)
    again = star_frames(read_star(tmp_path / "x.star"))
    for name, frame in frames.items():
        pandas.testing.assert_frame_equal(again[name], frame, check_dtype=False)
    assert star_from_frames(again, tmp_path / "x.star") == read_star(tmp_path / "x.star")


def test_starfile_reads_what_it_was_asked_to_format(tmp_path: Path) -> None:
    made = star_from_tables(
        {"micrographs": {"rlnMicrographName": ["a.mrc", "b.mrc"], "rlnDefocusU": [1.0, 2.0]}}, tmp_path / "x.star"
    )
    cryoplug.write_star(tmp_path / "x.star", made)
    pandas.testing.assert_frame_equal(
        starfile.read(tmp_path / "x.star"), star_frames(made)["micrographs"], check_dtype=False
    )
    assert "Created by" not in format_star(made), "the time of day would make every file another one"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("b.mrc", None),
        ("d'or/b.mrc", r"will read \"d'or/b.mrc\" as 'd\"or/b.mrc' (rlnMicrographName)"),
        ("b#1.mrc", "will read 'b#1.mrc' as 'b' (rlnMicrographName)"),
        ("nan", "will read 'nan' as nan (rlnMicrographName)"),
    ],
)
def test_the_second_opinion_tells_what_others_will_read(tmp_path: Path, name: str, said: str | None) -> None:
    path = tmp_path / "x.star"
    path.write_text(TEXT.format(name=name))
    found = second_opinion(read_star(path))
    if said is None:
        assert found == []
    else:
        assert len(found) == 1
        assert said.replace('\\"', '"') in found[0]
    warned = [item for item in inspect_path(path).findings if item.field == "starfile"]
    assert [item.message for item in warned] == found
    assert all(item.severity == "warning" for item in warned)


def test_a_file_that_was_mended_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.star"
    path.write_text(TEXT.format(name="b#1.mrc"))
    assert second_opinion(read_star(path))
    path.write_text(TEXT.format(name="b1.mrc"))
    assert second_opinion(read_star(path)) == []


@pytest.mark.parametrize("name", ["#a.mrc", "", "data_b", "loop_", "_x", 'd\'or "b".mrc', "two\nlines"])
def test_a_name_that_would_be_lost_is_refused_and_no_row_is(name: str) -> None:
    tables = {"micrographs": {"rlnMicrographName": ["a.mrc", name, "c.mrc"]}}
    try:
        made = star_from_tables(tables, Path("x.star"))
    except FormatError as error:
        assert str(error).startswith("x.star: ")
    else:
        assert made.blocks[0].column("rlnMicrographName") == ["a.mrc", name, "c.mrc"]


def test_names_that_are_no_text_are_kept_byte_for_byte():
    name = b"mic_\xc3\xa9\xff 1.mrc".decode("ascii", "surrogateescape")
    made = star_from_tables(
        {"micrographs": {"rlnMicrographName": [name, "größe.mrc"], "rlnX": [1.0, 2.5]}}, Path("x.star")
    )
    assert made.blocks[0].column("rlnMicrographName")[1] == "größe.mrc"
    assert os.fsencode(made.blocks[0].column("rlnMicrographName")[0]) == b"mic_\xc3\xa9\xff 1.mrc"
