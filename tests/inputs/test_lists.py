"""What STAR files and cryoSPARC datasets list: micrographs, movies, sections of stacks, and halves."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cryoplug.errors import FormatError, InputError, UsageError
from cryoplug.formats.star import read_star
from cryoplug.inputs.discovery import discover
from cryoplug.workflows.convert.inputs import list_inputs
from cryoplug.workflows.convert.request import ConvertRequest


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def star(block: str, columns: str, *rows: str, name: str = "a.star") -> str:
    head = "".join(f"_{column}\n" for column in columns.split())
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(os.fsencode(f"data_{block}\nloop_\n{head}" + "".join(f"{row}\n" for row in rows)))
    return name


def dataset(name: str, **columns: list[object]) -> str:
    names = {
        "micrograph": "micrograph_blob/path",
        "movie": "movie_blob/path",
        "stack": "blob/path",
        "place": "blob/idx",
    }
    arrays = {names[key]: np.array(values) for key, values in columns.items()}
    rows = np.empty(len(next(iter(arrays.values()))), dtype=[(key, array.dtype) for key, array in arrays.items()])
    for key, array in arrays.items():
        rows[key] = array
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    with Path(name).open("wb") as stream:
        np.save(stream, rows, allow_pickle=False)
    return name


def test_movies_are_found_when_asked_for(shared_data: Path) -> None:
    movies = str(shared_data / "star" / "relion5_spa" / "movies.star")
    found = discover([movies], kind="movies")
    assert len(found) == 24
    assert str(found[0].path) == "Movies/20170629_00021_frameImage.tiff"
    assert {item.pixel_size_angstrom for item in found} == {0.885}
    assert discover([movies], kind="either") == found
    with pytest.raises(FormatError, match="it lists movies"):
        discover([movies])


def test_the_motion_file_of_a_movie_names_one_movie(shared_data: Path) -> None:
    motion = shared_data / "star" / "relion31_spa" / "movie_frameImage.star"
    (item,) = discover([str(motion)], kind="movies")
    assert (str(item.relative), item.pixel_size_angstrom) == ("Movies/20170629_00030_frameImage.tiff", 0.885)


def test_a_table_with_both_gives_what_is_asked_for() -> None:
    both = star("micrographs", "rlnMicrographName rlnMicrographMovieName", "a.mrc a.tif")
    found = {kind: str(discover([both], kind=kind)[0].path) for kind in ("micrographs", "movies", "either")}
    assert found == {"micrographs": "a.mrc", "movies": "a.tif", "either": "a.mrc"}
    with pytest.raises(UsageError, match="kind 'frames'; allowed: micrographs, movies, either"):
        discover([both], kind="frames")


def test_real_particles_give_each_of_their_micrographs_once(shared_data: Path) -> None:
    path = shared_data / "star" / "relion31_spa" / "particles_1k.star"
    names = read_star(path).blocks[1].column("rlnMicrographName")
    found = discover([str(path)])
    assert [str(item.path) for item in found] == list(dict.fromkeys(names))
    assert [names.index(str(item.path)) for item in found] == [item.star_row for item in found]
    assert {item.section for item in found} == {None}


def test_particles_without_micrographs_are_sections(shared_data: Path) -> None:
    found = discover([str(shared_data / "star" / "aspire" / "rln_proj_64.star")])
    assert [(item.path.name, item.section, item.star_row) for item in found] == [
        ("rln_proj_64.mrcs", section, section - 1) for section in range(1, 6)
    ]
    assert len({item.relative for item in found}) == 5


def test_a_section_has_a_name_of_its_own() -> None:
    touch("x/s.mrc", "y/s.mrc", "s_000012.mrc")
    found = discover(["000012@x/s.mrc", "12@x/s.mrc", "3@x/s.mrc", "x/s.mrc", "3@y/s.mrc", "s_000012.mrc"])
    assert [(str(item.relative), item.section) for item in found] == [
        ("x/s_000012.mrc", 12),
        ("x/s_000003.mrc", 3),
        ("s.mrc", None),
        ("y/s_000003.mrc", 3),
        ("project/s_000012.mrc", None),
    ]
    assert found[0].path == Path("x/s.mrc")


def test_a_file_with_an_at_sign_in_its_name_is_a_file() -> None:
    touch("12@s.mrc")
    (item,) = discover(["12@s.mrc"])
    assert (item.path, item.section) == (Path("12@s.mrc"), None)


def test_section_zero_is_refused() -> None:
    with pytest.raises(InputError, match=r"0@s\.mrc: section 0; sections of a stack are counted from 1"):
        discover(["0@s.mrc"])
    with pytest.raises(
        FormatError, match=r"row 2 of rlnImageName has '0@s\.mrc'; allowed: a path, or a section from 1"
    ):
        discover([star("", "rlnImageName", "1@s.mrc", "0@s.mrc")])


def test_sections_of_a_job_keep_the_path_below_it() -> None:
    (item,) = discover([star("particles", "rlnImageName", "000007@Extract/job010/Movies/s.mrc")])
    assert str(item.relative) == "Movies/s_000007.mrc"


def test_bytes_beyond_utf8_in_a_star_find_their_file() -> None:
    name = os.fsdecode(b"prot\xe9ine 1.mrc")
    touch(name)
    (item,) = discover([star("", "rlnMicrographName", f'"{name}"')])
    assert item.path.exists()
    assert str(item.relative) == name


def test_halves_named_by_the_star_come_first() -> None:
    touch("a.mrc", "a_EVN.mrc", "a_ODD.mrc", "h/1.mrc", "h/2.mrc")
    columns = "rlnMicrographName rlnMicrographNameEven rlnMicrographNameOdd"
    first, second = discover([star("", columns, "a.mrc h/1.mrc h/2.mrc", "b.mrc None h/gone.mrc")])
    assert (first.even, first.odd) == (Path("h/1.mrc"), Path("h/2.mrc"))
    assert (second.even, second.odd) == (None, Path("h/gone.mrc"))


def test_real_tilt_series_name_their_halves(shared_data: Path) -> None:
    found = discover([str(shared_data / "star" / "relion5_tomo_evenodd" / "TS_01.star")])
    assert len(found) == 41
    for item in found:
        stem = str(item.path).removesuffix(".mrc")
        assert (str(item.even), str(item.odd)) == (f"{stem}_EVN.mrc", f"{stem}_ODD.mrc")


@pytest.mark.parametrize(("even", "odd"), [("EVN", "ODD"), ("even", "odd"), ("Even", "oDD")])
def test_halves_beside_a_micrograph_are_found_in_any_case(even: str, odd: str) -> None:
    touch("d/a.mrc", f"d/a_{even}.mrc", f"d/a_{odd}.mrc", "d/ab_ODD.mrc", "d/b.mrc")
    names = ("a.mrc", f"a_{even}.mrc", f"a_{odd}.mrc")
    found = {item.path.name: item for item in discover(["d", *(f"d/{name}" for name in names)])}
    for name in names:
        assert (found[name].even, found[name].odd) == (Path(f"d/a_{even}.mrc"), Path(f"d/a_{odd}.mrc"))
    assert (found["ab_ODD.mrc"].even, found["ab_ODD.mrc"].odd) == (None, Path("d/ab_ODD.mrc"))
    assert (found["b.mrc"].even, found["b.mrc"].odd) == (None, None)


def test_halves_beside_the_micrographs_of_a_star_are_found() -> None:
    touch("MotionCorr/job002/Movies/a_EVN.mrc", "MotionCorr/job002/Movies/a_ODD.mrc", "MotionCorr/job002/Movies/a.mrc")
    (item,) = discover([star("micrographs", "rlnMicrographName", "MotionCorr/job002/Movies/a.mrc")])
    assert (item.even, item.odd) == (item.path.with_name("a_EVN.mrc"), item.path.with_name("a_ODD.mrc"))


def test_a_section_has_no_halves_beside_it() -> None:
    touch("a.mrc", "a_EVN.mrc", "a_ODD.mrc")
    assert discover(["1@a.mrc"])[0].even is None


def test_paths_of_a_dataset_start_at_the_project(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch("J3/motioncorrected/a.mrc", "J3/exports/imported/b.mrc")
    listed = dataset("J3/exports/e.cs", micrograph=[b"J3/motioncorrected/a.mrc", b">imported/b.mrc", b"/data/c.mrc"])
    monkeypatch.chdir(working_folder.parent)
    found = discover([str(working_folder / listed)])
    assert [item.path.exists() for item in found] == [True, True, False]
    assert [str(item.relative) for item in found] == ["motioncorrected/a.mrc", "imported/b.mrc", "c.mrc"]
    assert {item.star_path for item in found} == {None}


def test_an_exported_dataset_finds_the_files_beside_it_first(working_folder: Path) -> None:
    touch("imported/b.mrc", "exports/imported/b.mrc")
    (item,) = discover([dataset("exports/e.cs", micrograph=[b">imported/b.mrc"])])
    assert item.path == working_folder / "exports" / "imported" / "b.mrc"


def test_particles_of_a_dataset_are_sections_each_once() -> None:
    listed = dataset("p.cs", stack=[b"J5/s.mrc", b"J5/s.mrc", b"J5/s.mrc"], place=[0, 7, 0])
    found = discover([listed])
    assert [(str(item.relative), item.section) for item in found] == [("s_000001.mrc", 1), ("s_000008.mrc", 8)]


def test_a_dataset_never_names_an_output_outside() -> None:
    found = discover([dataset("p.cs", micrograph=[b"../../etc/a.mrc", b">../x/a.mrc", b"/root/a.mrc"])])
    names = [str(item.relative) for item in found]
    assert all(not name.startswith("/") and ".." not in name.split("/") for name in names)
    assert Counter(names).most_common(1)[0][1] == 1


def test_a_dataset_of_something_else_says_what_it_has(shared_data: Path) -> None:
    with pytest.raises(FormatError, match=r"names no movies \(columns: movie_blob/path; it has: blob, ctf, uid\)"):
        discover([str(shared_data / "cs" / "empiar_10076_7.cs")], kind="movies")


def test_every_real_list_is_taken_or_refused_by_name(shared_data: Path) -> None:
    taken = 0
    for path in sorted([*(shared_data / "star").rglob("*.star"), *(shared_data / "cs").glob("*.cs")]):
        try:
            found = discover([str(path)], kind="either")
        except FormatError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            taken += 1
            assert len({item.relative for item in found}) == len(found)
    assert taken >= 12


def test_a_text_file_with_a_path_a_line_is_a_list() -> None:
    touch("d/a.mrc", "d/b.mrc", "d/stack.mrcs", "MotionCorr/job002/Movies/c.mrc")
    Path("d/list.txt").write_text(
        "# of today\n#d/x.mrc\n#comment\n\nd/b.mrc\r\nd/a.mrc\nd/b.mrc\n000002@d/stack.mrcs\nMotionCorr/job002/Movies/c.mrc\n"
    )
    found = discover(["d/list.txt"])
    assert [(str(item.relative), item.section) for item in found] == [
        ("d/b.mrc", None), ("d/a.mrc", None), ("d/stack_000002.mrcs", 2), ("Movies/c.mrc", None)
    ]  # fmt: skip
    assert all(item.path.exists() for item in found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names no micrograph"),
        (b"# nothing\n\n", "names no micrograph"),
        (b"d/a.mrc\nhello world\n", r"line 2 is 'hello world'; allowed: a path with the ending of a micrograph"),
        (b"\x00\x01binary", "this is not a text file"),
        (b"000000@d/a.mrcs\n", "line 1 is '000000@d/a.mrcs'"),
    ],
)
def test_a_text_file_that_is_no_list_is_refused(content: bytes, message: str) -> None:
    Path("list.lst").write_bytes(content)
    with pytest.raises(FormatError, match=message):
        discover(["list.lst"])


TOMO = """
data_global

loop_
_rlnTomoName #1
_rlnTomoTiltSeriesStarFile #2
_rlnTomoTiltSeriesPixelSize #3
TS_1 MotionCorr/job002/tilt_series/TS_1.star 1.35
TS_2 MotionCorr/job002/tilt_series/TS_2.star 1.35
"""


def test_the_star_file_of_tilt_series_lists_the_views_of_each() -> None:
    folder = Path("MotionCorr/job002/tilt_series")
    folder.mkdir(parents=True)
    for series in (1, 2):
        names = [f"MotionCorr/job002/frames/TS_{series}_{view}" for view in range(3)]
        touch(*(f"{name}{ending}.mrc" for name in names for ending in ("", "_EVN", "_ODD")))
        rows = "".join(f"{name}.mrc {10 * view}.0 {name}_EVN.mrc {name}_ODD.mrc\n" for view, name in enumerate(names))
        columns = ("rlnMicrographName", "rlnTomoNominalStageTiltAngle", "rlnMicrographNameEven", "rlnMicrographNameOdd")
        head = "".join(f"_{name} #{number}\n" for number, name in enumerate(columns, start=1))
        (folder / f"TS_{series}.star").write_text(f"data_TS_{series}\n\nloop_\n{head}{rows}")
    Path("MotionCorr/job002/corrected_tilt_series.star").write_text(TOMO)
    found = discover(["MotionCorr/job002/corrected_tilt_series.star"])
    assert [item.path.stem for item in found] == [f"TS_{series}_{view}" for series in (1, 2) for view in range(3)]
    assert {item.pixel_size_angstrom for item in found} == {1.35}
    assert all(item.even and item.odd for item in found)
    request = ConvertRequest(("MotionCorr/job002/corrected_tilt_series.star",), Path("s"), pairs="halves")
    inputs = list_inputs(request)
    assert inputs.exposures == (0, 0, 0, 1, 1, 1), "views of one series stay on one side of a split"


def test_a_star_file_of_tilt_series_that_lists_itself_is_refused() -> None:
    Path("loop.star").write_text(TOMO.replace("MotionCorr/job002/tilt_series/TS_1.star", "loop.star"))
    with pytest.raises(FormatError, match="it lists tilt series"):
        discover(["loop.star"])
