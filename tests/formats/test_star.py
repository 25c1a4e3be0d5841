"""STAR: what is read is written again, and what is ragged is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
import starfile
from hypothesis import given
from hypothesis import strategies as st

from cryoplug.errors import FormatError, MissingInputError, UsageError
from cryoplug.formats.star import (
    StarBlock,
    StarFile,
    format_star,
    image_table,
    parse_star,
    read_star,
    write_star,
)

HERE = Path("a.star")
RELION_31 = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnMicrographPixelSize #4 [binned]
opticsGroup1 1 0.885000 1.770000
opticsGroup2 2 0.900000 -1
opticsGroup3 3 -1 -1

# version 30001

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
MotionCorr/job002/a.mrc 1
MotionCorr/job002/b.mrc 2
MotionCorr/job002/c.mrc 3
"""

# Everything but line breaks, NUL and both kinds of quotes in one value; lone surrogates stand for bytes beyond UTF-8.
_VALUES = st.text(st.characters(blacklist_characters="\n\0"), max_size=12).filter(
    lambda text: not ('"' in text and "'" in text)
)
_NAMES = st.text("abcXYZ019_.-", min_size=1, max_size=8)


@st.composite
def blocks(draw: st.DrawFn) -> StarBlock:
    columns = draw(st.lists(_NAMES, min_size=1, max_size=4, unique=True))
    is_loop = draw(st.booleans())
    count = draw(st.integers(0, 3)) if is_loop else 1
    rows = [[draw(_VALUES) for _ in columns] for _ in range(count)]
    return StarBlock(draw(_NAMES), is_loop, columns, rows, draw(st.sampled_from([[], ["# version 50001"]])))


@given(st.lists(blocks(), min_size=1, max_size=3, unique_by=lambda block: block.name))
def test_any_table_is_read_as_it_was_written(content: list[StarBlock]) -> None:
    star = StarFile(content, HERE)
    assert parse_star(format_star(star), HERE) == star


def test_every_real_star_file_makes_the_round_trip(shared_data: Path) -> None:
    paths = sorted((shared_data / "star").rglob("*.star"))
    assert paths
    for path in paths:
        if path.name == "sample.star":
            continue
        star = read_star(path)
        assert parse_star(format_star(star), path) == star


def test_real_tables_agree_with_starfile(shared_data: Path) -> None:
    for name in ("relion5_spa/micrographs_ctf.star", "relion31_spa/particles_1k.star"):
        path = shared_data / "star" / name
        frames = starfile.read(path, always_dict=True)
        for block in read_star(path).blocks:
            frame = frames[block.name]
            assert list(frame.columns) == block.columns
            for column in block.columns:
                values = block.column(column)
                same = [str(a) == b or float(a) == float(b) for a, b in zip(frame[column], values, strict=True)]
                assert all(same)


def test_the_ragged_real_file_is_refused_with_its_line(shared_data: Path) -> None:
    with pytest.raises(FormatError, match=r"sample\.star: line 20: 5 values in block data_planetary; allowed: 4"):
        read_star(shared_data / "star" / "aspire" / "sample.star")


def test_a_written_file_is_read_by_starfile(tmp_path: Path) -> None:
    star = parse_star(RELION_31, tmp_path / "out.star")
    write_star(star.path, star)
    frames = starfile.read(star.path)
    assert list(frames["micrographs"]["rlnMicrographName"]) == image_table(star).block.column("rlnMicrographName")
    assert "# version 30001\n\ndata_micrographs\n\nloop_ \n_rlnMicrographName #1 \n" in star.path.read_text()


def test_bytes_beyond_utf8_and_windows_line_ends_survive(tmp_path: Path) -> None:
    path = tmp_path / "latin.star"
    path.write_bytes(b"\xef\xbb\xbfdata_\r\nloop_\r\n_rlnMicrographName #1\r\nprot\xe9ine.mrc\r\n")
    star = read_star(path)
    write_star(tmp_path / "again.star", star)
    assert b"prot\xe9ine.mrc \n" in (tmp_path / "again.star").read_bytes()
    assert read_star(tmp_path / "again.star").blocks == star.blocks


def test_quotes_and_comments_follow_the_cif_rule() -> None:
    text = "data_x\n_a 'it's one' # note\n_b \"\"\n_c d'Arc#1\nloop_free.mrc\n"
    with pytest.raises(FormatError, match="line 5"):
        parse_star(text, HERE)
    (block,) = parse_star(text.replace("loop_free.mrc\n", ""), HERE).blocks
    assert block.rows == [["it's one", "", "d'Arc#1"]]


def test_a_first_value_may_look_like_a_keyword() -> None:
    (block,) = parse_star("data_x\nloop_\n_a\n_b\ndata_001.mrc 1\n_odd.mrc 2\nloop_3.mrc 3\n", HERE).blocks
    assert block.column("a") == ["data_001.mrc", "_odd.mrc", "loop_3.mrc"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data_x\nloop_\n_a\n_b\n1 2\n3\n", "line 6: 1 values in block data_x; allowed: 2"),
        ("data_x\nloop_\n_a\n1 2\n", "line 4: 2 values in block data_x; allowed: 1"),
        ("data_x\nloop_\n_a #1\n_a #2\n", "line 4: column _a is there twice"),
        ("data_x\n_a 1\n_a 2\n", "line 3: column _a is there twice"),
        ("data_x\n_a\n", "line 2: _a has 0 values; exactly one value"),
        ("data_x\n_a 1 2\n", "line 2: _a has 2 values"),
        ("data_x\n_a 1\ndata_x\n", "line 3: block data_x is there twice"),
        ("data_x\nloop_\n_a\n1\nloop_\n_b\n", "line 5: a second table in block data_x"),
        ("data_x\n_a 'open\n", "line 2: a quote that never ends"),
        ("data_x\nloop_\n_a\n;text\n;\n", "line 4: a text of several lines"),
        ("hello\n", "line 1: text before the first data_ block"),
        ("# only a comment\n", "no data_ block"),
        ("", "no data_ block"),
        ("data_x\nloop_\n" + "".join(f"_{i}\n" for i in range(200_000)), "line 1003: block data_x has more than 1000"),
        ("data_x\n" + "".join(f"_{i} 1\n" for i in range(200_000)), "line 1002: block data_x has more than 1000"),
    ],
    ids=lambda value: value[:30],
)
def test_malformed_text_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_star(text, HERE)
    assert message in str(caught.value)
    assert str(caught.value).startswith("a.star: ")


def test_a_table_cut_at_any_byte_is_refused_or_has_whole_rows() -> None:
    whole = {tuple(row) for block in parse_star(RELION_31, HERE).blocks for row in block.rows}
    for cut in range(len(RELION_31)):
        try:
            star = parse_star(RELION_31[:cut], HERE)
        except FormatError:
            continue
        rows = [tuple(row) for block in star.blocks for row in block.rows]
        # A cut within the last value cannot be seen; every other row is whole.
        assert all(row in whole for row in rows[:-1])


def test_a_binary_file_is_no_star(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    path.write_bytes(b"data_\n\0\0")
    with pytest.raises(FormatError, match="binary file"):
        read_star(path)
    with pytest.raises(MissingInputError, match="no such file"):
        read_star(tmp_path / "none.star")


@pytest.mark.parametrize("value", ["a\nb", "both \" and '", "nul\0"])
def test_what_cannot_be_written_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="rename it"):
        format_star(StarFile([StarBlock("x", True, ["a"], [[value]])], HERE))


def test_columns_are_replaced_or_appended_and_nothing_else_changes() -> None:
    table = image_table(parse_star(RELION_31, HERE)).block
    changed = table.with_column("rlnMicrographName", ["x", "y", "z"]).with_column("cryoplugNew", ["1", "2", "3"])
    assert changed.columns == [*table.columns, "cryoplugNew"]
    assert changed.rows == [["x", "1", "1"], ["y", "2", "2"], ["z", "3", "3"]]
    assert table.column("rlnMicrographName")[0] == "MotionCorr/job002/a.mrc"
    with pytest.raises(UsageError, match="1 values of n for 3 rows"):
        table.with_column("n", ["1"])
    with pytest.raises(FormatError, match="has no column rlnX; it has: rlnMicrographName, rlnOpticsGroup"):
        table.column("rlnX")


def test_pixel_size_comes_from_the_optics_group_of_the_row() -> None:
    assert image_table(parse_star(RELION_31, HERE)).pixel_sizes == [1.77, 0.9, None]


def test_pixel_size_of_relion_30_comes_from_detector_and_magnification() -> None:
    text = "data_\nloop_\n_rlnMicrographName\n_rlnDetectorPixelSize\n_rlnMagnification\na 5.0 10000\nb 5 none\n"
    assert image_table(parse_star(text, HERE)).pixel_sizes == [5.0, None]


def test_a_star_without_micrographs_says_what_it_has() -> None:
    with pytest.raises(
        FormatError, match=r"no table with the column rlnMicrographName or rlnImageName \(blocks: data_x\)"
    ):
        image_table(parse_star("data_x\nloop_\n_a\n1\n", HERE))


RELION_STYLE = format_star(parse_star(RELION_31, HERE))


def test_a_table_of_relion_cut_at_any_byte_is_refused_or_has_only_whole_values() -> None:
    whole = {tuple(row) for block in parse_star(RELION_STYLE, HERE).blocks for row in block.rows}
    refused = 0
    for cut in range(len(RELION_STYLE)):
        try:
            star = parse_star(RELION_STYLE[:cut], HERE)
        except FormatError:
            refused += 1
            continue
        assert {tuple(row) for block in star.blocks for row in block.rows} <= whole
    assert refused > len(RELION_STYLE) // 2


def test_a_cut_last_value_is_refused_with_its_line() -> None:
    cut = RELION_STYLE.rstrip()[:-1]
    assert parse_star(RELION_STYLE.rstrip(" \n") + " ", HERE).blocks[1].rows[-1] == ["MotionCorr/job002/c.mrc", "3"]
    lines = cut.count("\n") + 1
    with pytest.raises(FormatError, match=rf"a\.star: line {lines}: 1 values in block data_micrographs; allowed: 2"):
        parse_star(cut, HERE)
    table = "data_\n\nloop_ \n_rlnMicrographName #1 \nmic_01.mrc \nmic_0"
    with pytest.raises(FormatError, match=r"a\.star: line 6: the file ends within this line: 'mic_0'; copy it again"):
        parse_star(table, HERE)
    # Without the spaces that RELION puts there, nothing tells a cut line from a whole one.
    assert len(parse_star(table.replace(" \n", "\n"), HERE).blocks[0].rows) == 2


def test_comments_are_kept_where_they_can_be() -> None:
    text = (
        "# made by hand\ndata_x # here\n_a 1 # volts\n\ndata_y\nloop_ # rows follow\n_b #1 [angstrom]\n_c # second\n"
        "# within\n1 2 # odd one\n3 4\n# end\n"
    )
    star = parse_star(text, HERE)
    assert star.blocks[0].notes == {"a": "# volts"}
    assert star.blocks[1].notes == {"b": "[angstrom]", "c": "# second"}
    written = format_star(star)
    for comment in (
        "# made by hand",
        "# here",
        "# volts",
        "# rows follow",
        "[angstrom]",
        "# second",
        "# within",
        "# odd",
    ):
        assert written.count(comment) == 1
    assert parse_star(written, HERE) == star


def test_a_table_without_columns_is_written_as_other_programs_read_it() -> None:
    star = parse_star("data_a\nloop_\n\ndata_b\nloop_\n_rlnMicrographName\na.mrc\n", Path("a.star"))
    text = format_star(star)
    assert text.count("loop_") == 1, "RELION and gemmi stop at a loop_ without columns"
    assert parse_star(text, Path("a.star")).blocks == star.blocks
    assert [block.name for block in star.blocks] == ["a", "b"]
