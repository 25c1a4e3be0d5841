"""STAR in gives STAR out, with everything kept."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import pytest

from cryoplug.errors import UsageError
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.star import image_table, read_star
from workflows.denoise.denoising import go, micrographs, pixels

STAR = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
_rlnVoltage #4
opticsGroup1 1 1.250000 300.000000
opticsGroup2 2 0.830000 200.000000

# version 30001

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnCtfMaxResolution #3
MotionCorr/job002/Movies/a.mrc 1 4.90000
MotionCorr/job002/Movies/b.mrc 2 5.12345
MotionCorr/job002/Movies/c.mrc 1 3.00000

data_notes

_rlnPipeLineJobCounter 7
"""


@pytest.fixture
def project(here: Path) -> Path:
    movies = here / "MotionCorr" / "job002" / "Movies"
    movies.mkdir(parents=True)
    micrographs(movies, pixel_size_angstrom=None)
    (here / "in.star").write_text(STAR)
    return here


def test_star_in_gives_star_out_with_everything_kept(project, checkpoints):
    batch = go(checkpoints[0], "in.star", output="Denoised", star=Path("Denoised/out.star"))
    assert batch.exit_code == 0 and batch.outputs == (Path("Denoised/out.star"),) and batch.details["left_out"] == []
    old, new = read_star("in.star"), read_star("Denoised/out.star")
    assert [block.name for block in new.blocks] == ["optics", "micrographs", "notes"]
    assert new.block("optics") == old.block("optics") and new.block("notes").rows == old.block("notes").rows
    table = image_table(new).block
    assert table.columns == [*image_table(old).block.columns, "cryoplugMicrographNameRaw"]
    assert table.column("rlnMicrographName") == [f"Denoised/Movies/{name}.mrc" for name in "abc"]
    assert table.column("cryoplugMicrographNameRaw") == image_table(old).block.column("rlnMicrographName")
    assert table.column("rlnCtfMaxResolution") == ["4.90000", "5.12345", "3.00000"]
    assert all(Path(name).is_file() for name in table.column("rlnMicrographName"))


def test_a_pixel_size_that_only_the_star_knows_goes_into_the_header(project, checkpoints):
    go(checkpoints[0], "in.star", output="Denoised")
    for name, size in zip("abc", (1.25, 0.83, 1.25), strict=True):
        with mrcfile.open(f"Denoised/Movies/{name}.mrc", header_only=True) as mrc:
            assert float(mrc.voxel_size.x) == pytest.approx(size)


def test_rows_whose_micrograph_failed_are_left_out_and_named(project, checkpoints):
    Path("MotionCorr/job002/Movies/b.mrc").unlink()
    batch = go(checkpoints[0], "in.star", output="Denoised", star=Path("out.star"))
    assert batch.exit_code == 3 and batch.details["left_out"] == ["MotionCorr/job002/Movies/b.mrc"]
    names = image_table(read_star("out.star")).block.column("cryoplugMicrographNameRaw")
    assert names == ["MotionCorr/job002/Movies/a.mrc", "MotionCorr/job002/Movies/c.mrc"]


def test_without_any_result_no_star_is_written(project, checkpoints):
    for name in "abc":
        Path(f"MotionCorr/job002/Movies/{name}.mrc").unlink()
    batch = go(checkpoints[0], "in.star", output="Denoised", star=Path("out.star"))
    assert batch.exit_code == 4 and not Path("out.star").exists() and batch.outputs == ()


def test_files_outside_of_the_working_folder_are_named_from_the_root(project, checkpoints, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    go(checkpoints[0], "in.star", output=str(elsewhere), star=Path("out.star"))
    (first, *_) = image_table(read_star("out.star")).block.column("rlnMicrographName")
    assert first == str(elsewhere / "Movies" / "a.mrc")


def test_a_row_that_names_a_micrograph_again_follows_the_first(project, checkpoints):
    text = STAR.replace("c.mrc 1 3.00000", "c.mrc 1 3.00000\nMotionCorr/job002/Movies/a.mrc 1 9.9")
    Path("in.star").write_text(text)
    go(checkpoints[0], "in.star", output="Denoised", star=Path("out.star"))
    names = image_table(read_star("out.star")).block.column("rlnMicrographName")
    assert names == [f"Denoised/Movies/{name}.mrc" for name in "abca"]


def test_without_star_input_a_star_of_version_3_1_is_made(here, checkpoints):
    micrographs(here, "ab")
    write_mrc(here / "c.mrc", pixels(3), pixel_size_angstrom=0.83)
    go(checkpoints[0], "a.mrc", "b.mrc", "c.mrc", star=Path("out.star"))
    star = read_star("out.star")
    assert star.block("optics").column("rlnMicrographPixelSize") == ["1.250000", "0.830000"]
    table = star.block("micrographs")
    assert table.column("rlnMicrographName") == ["out/a.mrc", "out/b.mrc", "out/c.mrc"]
    assert table.column("rlnOpticsGroup") == ["1", "1", "2"]
    assert table.column("cryoplugMicrographNameRaw") == ["a.mrc", "b.mrc", "c.mrc"]


def test_a_second_run_keeps_or_renews_its_own_star_but_no_foreign_one(project, checkpoints):
    named = {"output": "Denoised", "star": Path("out.star")}
    go(checkpoints[0], "in.star", **named)
    first = Path("out.star").read_bytes()
    go(checkpoints[0], "in.star", **named)
    assert Path("out.star").read_bytes() == first
    Path("out.star").write_text("data_mine\n")
    with pytest.raises(UsageError, match="no earlier run"):
        go(checkpoints[0], "in.star", **named)
    go(checkpoints[0], "in.star", overwrite=True, **named)
    assert Path("out.star").read_bytes() == first


def test_the_star_file_is_never_an_input(project, checkpoints):
    with pytest.raises(UsageError, match="inputs are never overwritten"):
        go(checkpoints[0], "in.star", star=Path("in.star"), overwrite=True)


def test_one_star_cannot_be_made_from_two_sources(project, checkpoints):
    write_mrc(project / "extra.mrc", pixels(5))
    with pytest.raises(UsageError, match="give one STAR file alone"):
        go(checkpoints[0], "in.star", "extra.mrc", star=Path("out.star"))
