"""The STAR file of denoised micrographs: every row follows, everything else stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import starfile

from cryoplug.errors import FormatError, UsageError
from cryoplug.formats.star import StarFile, format_star, image_table, parse_star, read_star, write_star
from cryoplug.inputs.discovery import discover
from cryoplug.outputs.star_rows import (
    RAW_COLUMN,
    RAW_IMAGE_COLUMN,
    DenoisedMicrograph,
    check_star_can_name,
    check_star_is_ours,
    star_from_files,
    star_from_star,
    write_own_star,
)

PARTICLES = """
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnImagePixelSize #2
1 1.3679300

# version 30001

data_particles

loop_
_rlnImageName #1
_rlnMicrographName #2
_rlnDefocusU #3
000001@s.mrcs Micrographs/a.mrc 10000.50
000002@s.mrcs ./Micrographs/a.mrc 1e4
000003@s.mrcs Micrographs/b.mrc 9.9900000E+03
000004@s.mrcs Micrographs/a.mrc 007
"""


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def denoise(path: Path) -> StarFile:
    """What the denoise workflow writes when it succeeds with every file."""
    found = discover([str(path)])
    return star_from_star(
        read_star(path), {item.star_row: Path("out", item.relative) for item in found if item.star_row is not None}
    )


def test_every_row_of_a_particle_table_gets_the_denoised_name(working_folder: Path) -> None:
    path = working_folder / "particles.star"
    path.write_text(PARTICLES)
    old, new = read_star(path), denoise(path)
    table = new.blocks[1]
    assert table.column("rlnMicrographName") == [f"out/Micrographs/{name}.mrc" for name in "aaba"]
    assert table.column(RAW_COLUMN) == old.blocks[1].column("rlnMicrographName")
    for column in ("rlnImageName", "rlnDefocusU"):
        assert table.column(column) == old.blocks[1].column(column)
    assert new.blocks[0] == old.blocks[0]
    text = format_star(new)
    assert all(number in text for number in ("1.3679300", "10000.50", " 1e4 ", "9.9900000E+03", " 007 "))


def test_rows_of_a_micrograph_that_failed_are_left_out(working_folder: Path) -> None:
    path = working_folder / "particles.star"
    path.write_text(PARTICLES)
    new = star_from_star(read_star(path), {2: Path("out/b.mrc")})
    assert image_table(new).names == ["out/b.mrc"]
    assert new.blocks[1].column("rlnImageName") == ["000003@s.mrcs"]


@pytest.mark.parametrize(
    "name",
    [
        "relion5_spa/micrographs_selected.star",
        "relion31_spa/corrected_micrographs.star",
        "relion31_spa/particles_1k.star",
        "relion5_tomo_evenodd/Denoise_TS_01.star",
        "aspire/sample_particles_relion30.star",
    ],
)
def test_real_files_change_in_their_names_alone(name: str, shared_data: Path, working_folder: Path) -> None:
    old = read_star(shared_data / "star" / name)
    new = denoise(old.path)
    write_star(working_folder / "new.star", new)
    names, raw = image_table(new).names, image_table(old).names
    assert [Path(name).name for name in names] == [Path(name).name for name in raw]
    assert all(name.startswith("out/") for name in names)
    restored = new.with_block(image_table(new).block.with_column("rlnMicrographName", raw))
    for before, after in zip(old.blocks, restored.blocks, strict=True):
        width = len(before.columns)
        assert after.columns[:width] == before.columns
        assert [row[:width] for row in after.rows] == before.rows
        assert (after.preamble, after.notes, after.is_loop) == (before.preamble, before.notes, before.is_loop)
    theirs = starfile.read(working_folder / "new.star", always_dict=True)
    assert list(theirs[image_table(new).block.name]["rlnMicrographName"]) == names


def test_particles_without_micrographs_point_at_files_of_one_section(shared_data: Path) -> None:
    new = denoise(shared_data / "star" / "aspire" / "rln_proj_64.star")
    table = image_table(new)
    assert table.column == "rlnImageName"
    assert [name.split("@")[0] for name in table.names] == ["000001"] * 5
    assert len(set(table.names)) == 5
    assert table.block.column(RAW_IMAGE_COLUMN)[4] == "000005@rln_proj_64.mrcs"


def test_denoising_twice_remembers_the_first_source(working_folder: Path) -> None:
    path = working_folder / "particles.star"
    path.write_text(PARTICLES)
    write_star(working_folder / "once.star", denoise(path))
    twice = denoise(working_folder / "once.star")
    assert image_table(twice).names[0] == "out/out/Micrographs/a.mrc"
    assert twice.blocks[1].column(RAW_COLUMN) == read_star(path).blocks[1].column("rlnMicrographName")


def test_files_without_a_star_get_one_group_for_each_pixel_size(working_folder: Path) -> None:
    items = [
        DenoisedMicrograph(Path("raw/a.mrc"), Path("out/a.mrc"), 1.5),
        DenoisedMicrograph(Path("/raw/b.mrc"), Path("/out/b.mrc"), None),
        DenoisedMicrograph(Path("raw/c.mrc"), working_folder / "out" / "c.mrc", 1.5),
    ]
    star = star_from_files(Path("x.star"), items)
    again = parse_star(format_star(star), Path("x.star"))
    assert again == star
    table = image_table(again)
    assert table.names == ["out/a.mrc", "/out/b.mrc", "out/c.mrc"]
    assert table.pixel_sizes == [1.5, None, 1.5]
    assert again.blocks[0].columns[2:] == ["rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize"]
    assert "0.000000" not in format_star(star), "what nobody knows is left out, and is not 0"


def test_one_pixel_size_in_float32_cells_of_other_shapes_is_one_group(working_folder: Path) -> None:
    sizes = [float(np.float32(1.3 * side)) / side for side in (31, 257, 701, 4096)]
    assert len(set(sizes)) > 1
    items = [DenoisedMicrograph(Path(f"{size}.mrc"), Path(f"out/{size}.mrc"), size) for size in sizes]
    optics = star_from_files(Path("x.star"), items).blocks[0]
    assert optics.column("rlnMicrographPixelSize") == ["1.300000"]


def test_what_is_known_of_some_is_none_for_the_others(working_folder: Path) -> None:
    known = {"voltage_kv": 300.0, "spherical_aberration_mm": 2.7}
    items = [
        DenoisedMicrograph(Path("raw/a.mrc"), Path("out/a.mrc"), None),
        DenoisedMicrograph(Path("raw/b.mrc"), Path("out/b.mrc"), None, **known),
    ]
    optics = star_from_files(Path("x.star"), items).blocks[0]
    assert optics.columns[2:] == ["rlnVoltage", "rlnSphericalAberration"]
    assert optics.rows == [["opticsGroup1", "1", "None", "None"], ["opticsGroup2", "2", "300.000000", "2.700000"]]
    bare = star_from_files(Path("x.star"), items[:1])
    assert bare.blocks[0].columns == ["rlnOpticsGroupName", "rlnOpticsGroup"]


def test_sections_of_stacks_are_listed_as_particles(working_folder: Path) -> None:
    items = [
        DenoisedMicrograph(Path("raw/a.mrc"), Path("out/a.mrc"), 1.5),
        DenoisedMicrograph(Path("raw/p.mrcs"), Path("out/p.mrcs"), 1.5, sections=3),
    ]
    star = star_from_files(Path("x.star"), items)
    assert [block.name for block in star.blocks] == ["optics", "micrographs", "particles"]
    assert star.blocks[2].column("rlnImageName") == [f"00000{n}@out/p.mrcs" for n in (1, 2, 3)]
    assert star.blocks[2].column("cryoplugImageNameRaw") == [f"00000{n}@raw/p.mrcs" for n in (1, 2, 3)]


@pytest.mark.parametrize("name", ["two\nlines.mrc", "both ' and \" .mrc"])
def test_a_name_that_no_row_can_hold_is_refused_before_the_work(name: str) -> None:
    with pytest.raises(UsageError, match=r"x\.star: the value .* rename it"):
        check_star_can_name(Path("x.star"), [Path("fine 1.mrc"), Path(name)])
    check_star_can_name(Path("x.star"), [Path("fine 1.mrc"), Path("it's.mrc"), Path("é.mrc")])


@pytest.mark.parametrize(
    "name", ["a\tb.mrc", '"a.mrc', "#a.mrc", ";a.mrc", "a\x0bb.mrc", "x/a b.mrc", "x/it's.mrc", 'x/a"b.mrc', "x/é.mrc"]
)
def test_what_a_new_star_file_cannot_hold_is_known_before_the_work_and_not_after_it(name: str) -> None:
    made = DenoisedMicrograph(Path(name), Path("out.mrc"), 1.0)
    try:
        star_from_files(Path("x.star"), [made])
    except FormatError as error:
        with pytest.raises(UsageError) as early:
            check_star_can_name(Path("x.star"), [Path(name)], is_new=True)
        assert "cannot be written into a STAR file that all programs read; rename it" in str(error)
        assert repr(name) in str(early.value) and repr(name) in str(error)
    else:
        check_star_can_name(Path("x.star"), [Path(name)], is_new=True)


def test_a_star_that_another_program_wrote_is_not_replaced(working_folder: Path) -> None:
    path, record = working_folder / "x.star", working_folder / "out" / "x.sha256"
    star = star_from_files(path, [DenoisedMicrograph(Path("a.mrc"), Path("out/a.mrc"), 1.0)])
    record.parent.mkdir()
    write_own_star(path, record, star)
    check_star_is_ours(path, record, overwrite=False)
    path.write_text(path.read_text() + "# edited\n")
    with pytest.raises(UsageError, match=r"x\.star: exists, and no earlier run of this output folder wrote it"):
        check_star_is_ours(path, record, overwrite=False)
    check_star_is_ours(path, record, overwrite=True)
