"""What the user names becomes a list in which every file has its own safe output name."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from cryoplug.errors import FormatError, InputError, MissingInputError, StorageError, UsageError
from cryoplug.formats import registry
from cryoplug.formats.registry import open_micrograph
from cryoplug.inputs.discovery import discover
from cryoplug.inputs.pairing import halves_of, pair_files
from cryoplug.outputs.planning import OutputPlanner

STAR = """
data_optics

loop_
_rlnOpticsGroup #1
_rlnMicrographPixelSize #2
1 1.5

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
"""


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def touch(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write_star(path: str, *names: str) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(STAR + "".join(f"{name} 1\n" for name in names))
    return path


def relatives(*inputs: str) -> list[str]:
    return [str(item.relative) for item in discover(inputs)]


def test_a_folder_is_searched_in_all_depths_and_sorted() -> None:
    touch("d/b.mrc", "d/a.MRC", "d/sub/c.mrc", "d/notes.txt", "d/.hidden.mrc", "d/.cache/e.mrc")
    touch("d/.x.mrc.1.cryoplug-partial")
    assert relatives("d") == ["a.MRC", "b.mrc", "sub/c.mrc"]


def test_a_loop_of_links_is_walked_once() -> None:
    touch("d/a.mrc")
    Path("d/again").symlink_to(Path("d").absolute())
    assert relatives("d") == ["a.mrc"]


def test_links_that_lead_round_between_two_folders_are_walked_once() -> None:
    touch("d/a/1.mrc", "d/b/2.mrc")
    Path("d/a/over").symlink_to("../b")
    Path("d/b/back").symlink_to("../a")
    names = relatives("d")
    assert sorted(Path(name).name for name in names) == ["1.mrc", "2.mrc"]


def test_a_link_to_itself_is_listed_and_fails_alone() -> None:
    touch("d/a.mrc")
    Path("d/loop.mrc").symlink_to("loop.mrc")
    found = discover(["d"])
    assert [item.path.name for item in found] == ["a.mrc", "loop.mrc"]
    with pytest.raises((InputError, StorageError), match=r"loop\.mrc"):
        open_micrograph(found[1].path)


def test_a_link_to_a_folder_elsewhere_is_followed() -> None:
    touch("store/a.mrc", "d/b.mrc")
    Path("d/linked").symlink_to(Path("store").absolute())
    assert relatives("d") == ["b.mrc", "linked/a.mrc"]


def test_a_pattern_gives_sorted_matches_or_an_error() -> None:
    touch("d/b1.mrc", "d/a1.mrc", "d/e/a2.mrc")
    assert relatives("d/*1.mrc") == ["a1.mrc", "b1.mrc"]
    assert relatives("d/**/*.mrc") == ["a1.mrc", "b1.mrc", "a2.mrc"]
    with pytest.raises(MissingInputError, match=r"x\*\.mrc: no file matches this pattern"):
        discover(["x*.mrc"])


def test_a_name_with_pattern_characters_is_a_file_when_it_exists() -> None:
    touch("grid[1].mrc")
    assert relatives("grid[1].mrc") == ["grid[1].mrc"]


def test_a_file_named_twice_is_listed_once() -> None:
    touch("d/a.mrc")
    assert relatives("d", "d/a.mrc", "./d/*.mrc") == ["a.mrc"]


def test_a_missing_file_stays_in_the_list() -> None:
    (item,) = discover(["none.mrc"])
    assert item.path == Path("none.mrc")


def test_equal_names_in_two_folders_keep_their_folders() -> None:
    touch("x/1/a.mrc", "y/1/a.mrc", "y/b.mrc")
    assert relatives("x/1/a.mrc", "y/1/a.mrc", "y/b.mrc") == ["x/1/a.mrc", "y/1/a.mrc", "b.mrc"]
    assert relatives("x", "y") == ["x/1/a.mrc", "b.mrc", "y/1/a.mrc"]


def test_a_star_keeps_the_path_below_the_job_and_the_pixel_size() -> None:
    touch("MotionCorr/job002/Movies/a.mrc")
    star = write_star("MotionCorr/job002/m.star", "MotionCorr/job002/Movies/a.mrc", "MotionCorr/job002/Movies/b.mrc")
    first, second = discover([star])
    assert first.path == Path("MotionCorr/job002/Movies/a.mrc")
    assert (first.relative, first.star_row) == (PurePosixPath("Movies/a.mrc"), 0)
    assert (first.star_path, first.pixel_size_angstrom) == (Path(star), 1.5)
    assert (second.relative, second.star_row) == (PurePosixPath("Movies/b.mrc"), 1)
    assert not second.path.exists()


def test_equal_names_in_two_jobs_keep_their_jobs() -> None:
    names = ["MotionCorr/job002/Movies/a.mrc", "MotionCorr/job003/Movies/a.mrc"]
    touch(*names)
    star = write_star("m.star", *names)
    assert relatives(star) == ["job002/Movies/a.mrc", "job003/Movies/a.mrc"]


def test_paths_of_a_star_are_found_from_its_folder_and_from_the_project(
    working_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch("MotionCorr/job002/Movies/a.mrc", "Select/job005/beside.mrc")
    star = working_folder / write_star("Select/job005/m.star", "MotionCorr/job002/Movies/a.mrc", "beside.mrc")
    elsewhere = working_folder.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    found = discover([str(star)])
    assert [item.path.exists() for item in found] == [True, True]
    assert [str(item.relative) for item in found] == ["Movies/a.mrc", "beside.mrc"]


@pytest.mark.parametrize(
    ("name", "relative"),
    [
        ("../../etc/passwd.mrc", "etc/passwd.mrc"),
        ("a/../../b.mrc", "b.mrc"),
        ("/data/session/b.mrc", "b.mrc"),
        ("/data/MotionCorr/job012/Movies/b.mrc", "Movies/b.mrc"),
        ("job012/b.mrc", "job012/b.mrc"),
        ("Import/job1234/b.mrc", "b.mrc"),
        ("Import/jobs/b.mrc", "Import/jobs/b.mrc"),
    ],
)
def test_an_output_name_never_leaves_the_output_folder(name: str, relative: str) -> None:
    assert relatives(write_star("m.star", name)) == [relative]


def test_a_path_that_climbs_out_is_read_but_its_output_stays_inside(working_folder: Path) -> None:
    outside = working_folder.parent / "session"
    touch("../session/a.mrc", "../session/deep/b.mrc")
    Path("link").symlink_to(outside)
    names = ["../session/a.mrc", f"{outside}/deep/b.mrc", "link/../session/a.mrc", "link/deep/../../session/deep/b.mrc"]
    found = discover([write_star("m.star", *names)])
    assert {item.path.resolve() for item in found[:2]} == {outside / "a.mrc", outside / "deep" / "b.mrc"}
    planned = OutputPlanner(Path("out")).add(found)
    assert all(item.target.resolve().is_relative_to(working_folder / "out") for item in planned)
    assert len({item.target for item in planned}) == len(planned)


def test_an_output_folder_with_a_link_that_leads_out_is_refused(working_folder: Path) -> None:
    touch("Movies/a.mrc", "../elsewhere/x")
    Path("out").mkdir()
    Path("out/Movies").symlink_to(working_folder.parent / "elsewhere")
    with pytest.raises(UsageError, match="leads outside of the output folder"):
        OutputPlanner(Path("out")).add(discover([write_star("m.star", "Movies/a.mrc")]))


def test_a_micrograph_that_many_rows_name_is_listed_once_with_its_first_row() -> None:
    star = write_star("particles.star", "a.mrc", "b.mrc", "a.mrc")
    assert [(str(item.relative), item.star_row) for item in discover([star])] == [("a.mrc", 0), ("b.mrc", 1)]


def test_nothing_to_do_is_an_error_that_says_what_was_looked_for() -> None:
    Path("empty").mkdir()
    for inputs in ([], ["empty"]):
        with pytest.raises(
            InputError, match=r"no micrograph was found \(endings: .*\.mrc, .*\.cs, \.txt, \.lst, \.list\)"
        ):
            discover(inputs)
    with pytest.raises(MissingInputError, match="cannot be a file name"):
        discover(["a\0b.mrc"])
    with pytest.raises(MissingInputError, match=r"none\.star: there is no such file"):
        discover(["none.star"])
    with pytest.raises(FormatError, match="the table of micrographs is empty"):
        discover([write_star("m.star")])


def test_every_known_ending_is_found_the_double_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(registry.MRC, id="packed", extensions=(".mrc.gz", ".tif"), searched=None)
    monkeypatch.setattr("cryoplug.inputs.discovered.formats", lambda: {"mrc": registry.MRC, "packed": spec})
    touch("d/a.mrc", "d/b.MRC.GZ", "d/c.gz", "d/d.Tif", "d/e.mrc.bak", "d/.mrc.gz")
    assert relatives("d") == ["a.mrc", "b.MRC.GZ", "d.Tif"]
    assert relatives("3@d/b.MRC.GZ", "3@d/d.Tif") == ["b_000003.MRC.GZ", "d_000003.Tif"]


@pytest.mark.parametrize(
    "name", ["mic é.mrc", "two\nlines.mrc", "tab\t.mrc", "'quoted\".mrc", os.fsdecode(b"latin\xe9.mrc")]
)
def test_any_name_that_the_file_system_takes_is_found(name: str) -> None:
    touch(f"d/{name}", f"{name}/inside.mrc")
    assert relatives("d") == [name]
    (item,) = discover([f"d/{name}"])
    assert item.path.exists()
    assert relatives(name) == ["inside.mrc"]


@pytest.mark.slow
def test_twenty_thousand_files_and_rows_take_seconds() -> None:
    Path("many").mkdir()
    for i in range(10_000):
        Path("many", f"mic_{i:05d}_EVN.mrc").touch()
        Path("many", f"mic_{i:05d}_ODD.mrc").touch()
    began = time.process_time()
    found = discover(["many"])
    assert len(found) == 20_000
    halves = halves_of(found)
    assert len(pair_files(halves.even, halves.odd, sides=("even", "odd"))) == 10_000
    star = write_star("m.star", *(f"many/mic_{i:05d}.mrc" for i in range(20_000)))
    assert len(discover([star])) == 20_000
    # 2 to 4 seconds of a processor; quadratic work would take minutes.
    assert time.process_time() - began < 30


def test_a_real_project_gives_its_micrographs(shared_data: Path) -> None:
    found = discover([str(shared_data / "star" / "relion5_spa" / "corrected_micrographs.star")])
    assert len(found) == 24
    assert str(found[0].relative) == "Movies/20170629_00021_frameImage.mrc"
    assert {item.pixel_size_angstrom for item in found} == {0.885}


def test_a_training_set_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{}")
    (tmp_path / "noisy_train.bin").write_bytes(bytes(64))
    with pytest.raises(InputError, match="this is a training set of cryoplug convert; name the micrographs"):
        discover([str(tmp_path)])
