"""One micrograph an exposure: what only accompanies it is left out of folders and patterns, and the number is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoplug.cli.main import run
from cryoplug.formats.mrc import write_mrc
from cryoplug.inputs.discovery import discover, find
from cryoplug.inputs.exposure_names import Role, exposure_name
from cryoplug.store.pairs import open_store
from cryoplug.workflows.convert import ConvertRequest, convert
from cryoplug.workflows.convert.inputs import list_inputs
from cryoplug.workflows.convert.run import pick_test_exposures, pick_test_micrographs
from cryoplug.workflows.simulate.workflow import KINDS

RELION = ("", "_noDW", "_EVN", "_ODD", "_PS")
MOTIONCOR = ("", "_DW", "_DWS", "_EVN", "_ODD")


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> list[str]:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return list(names)


def paths(*inputs: str) -> list[str]:
    return sorted(str(item.path) for item in discover(inputs))


def image(path: Path | str, seed: int = 0) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_mrc(path, np.random.default_rng(seed).normal(10, 1, (96, 96)).astype(np.float32), pixel_size_angstrom=2)


@pytest.mark.parametrize(
    "endings", [RELION, MOTIONCOR, ("", "_even", "_odd", "_mask", "_preview"), ("", "_doseweighted")]
)
@pytest.mark.parametrize("given", ["d", "d/*.mrc", "d/**", "."])
def test_a_search_gives_one_micrograph_an_exposure(endings: tuple[str, ...], given: str) -> None:
    touch(*(f"d/m{i}{end}.mrc" for i in range(3) for end in endings))
    found = find([given])
    assert [item.path.name for item in found.micrographs] == ["m0.mrc", "m1.mrc", "m2.mrc"]
    assert len(found.companions) == 3 * (len(endings) - 1)
    assert found.note.startswith(f"{len(found.companions)} files that only accompany micrographs are left out (")


@pytest.mark.parametrize("movie", ["_Fractions.mrc", "_fractions.tiff", "_EER.eer", "_Fractions.mrc.bz2"])
def test_the_movie_of_epu_accompanies_its_micrograph_and_comes_first_where_movies_are_asked_for(movie: str) -> None:
    touch(*(f"d/FoilHole_{i}_Data_7{end}" for i in range(3) for end in (".mrc", movie)))
    sums = [f"FoilHole_{i}_Data_7.mrc" for i in range(3)]
    found = find(["d"])
    assert [item.path.name for item in found.micrographs] == sums
    assert f"left out ({movie.split('.')[0]} 3)" in found.note
    for kind in ("movies", "either"):
        found = find(["d"], kind=kind)
        assert [item.path.name for item in found.micrographs] == [f"FoilHole_{i}_Data_7{movie}" for i in range(3)]
        assert "left out (micrographs of movies 3)" in found.note
    touch(*(f"d/FoilHole_{i}_Data_7{end}.mrc" for i in range(3) for end in ("_EVN", "_ODD")))
    assert [item.path.name for item in find(["d"], kind="either").micrographs] == sums, "halves need no movie"
    touch(*(f"only/m{i}{movie}" for i in range(3)))
    assert len(find(["only"]).micrographs) == 3


def test_a_link_to_itself_fails_alone() -> None:
    Path("d").mkdir()
    for seed in range(2):
        image(f"d/m{seed}.mrc", seed)
    Path("d/loop.mrc").symlink_to("loop.mrc")
    result = convert(ConvertRequest(("d",), Path("s"), patch_size=32))
    assert [(item.input.name, item.status) for item in result.files if item.status == "failed"] == [
        ("loop.mrc", "failed")
    ]
    assert result.exit_code == 3


def test_warps_folders_and_those_of_simulate_give_one_micrograph_an_exposure() -> None:
    kinds = ("average", "average/even", "average/odd", "powerspectrum", "mask")
    touch(*(f"warp/{kind}/TS_1_{i}.mrc" for i in range(2) for kind in kinds))
    assert paths("warp") == ["warp/average/TS_1_0.mrc", "warp/average/TS_1_1.mrc"]
    touch(*(f"sim/{kind}/mic_{i}.mrc" for i in range(2) for kind in KINDS))
    assert paths("sim") == ["sim/noisy/mic_0.mrc", "sim/noisy/mic_1.mrc"]


def test_below_a_session_of_warp_the_movies_above_the_averages_are_no_micrographs() -> None:
    """Warp 1 writes ``average/`` below the movies, and halves into ``denoising/``."""
    kinds = ("average", "deconv", "powerspectrum", "denoising/even", "denoising/odd")
    touch(*(f"w/{kind}/m{i}.mrc" for i in range(2) for kind in kinds), "w/m0.tif", "w/m1.tif")
    assert paths("w") == ["w/average/m0.mrc", "w/average/m1.mrc"]
    assert "movies 2" in find(["w"]).note and "micrographs of movies" not in find(["w"]).note
    found = find(["w"], kind="either").micrographs
    assert [str(item.path) for item in found] == ["w/average/m0.mrc", "w/average/m1.mrc"]
    assert [str(item.even) for item in found] == ["w/denoising/even/m0.mrc", "w/denoising/even/m1.mrc"]
    touch("e/m0.tif", "e/average/m0.mrc", "e/m1.tif")
    assert paths("e") == ["e/average/m0.mrc", "e/m1.tif"], "nobody knows whether the second one is a movie"
    assert [str(item.path) for item in find(["e"], kind="movies").micrographs] == ["e/m0.tif", "e/m1.tif"]


def test_cryosparc_writes_two_sums_and_a_background() -> None:
    touch(
        *(
            f"J2/{i}_x_{end}.mrc"
            for i in range(2)
            for end in ("patch_aligned", "patch_aligned_doseweighted", "background")
        )
    )
    found = find(["J2"])
    assert [item.path.name for item in found.micrographs] == [f"{i}_x_patch_aligned_doseweighted.mrc" for i in range(2)]
    assert "_patch_aligned 2" in found.note and "_background 2" in found.note
    touch("J3/0_x_rigid_aligned.mrc", "J3/0_x_background.mrc")
    assert paths("J3") == ["J3/0_x_rigid_aligned.mrc"]


@pytest.mark.parametrize(
    "end", ["Stk", "DWStk", "Ctf", "diag", "ctffind4", "avrot", "gctf", "denoised", "deconv", "diag_2D"]
)
def test_what_programs_leave_beside_a_micrograph_is_none(end: str) -> None:
    touch(*(f"d/m{i}{tail}.mrc" for i in range(3) for tail in ("", f"_{end}")))
    assert paths("d") == ["d/m0.mrc", "d/m1.mrc", "d/m2.mrc"]
    touch(*(f"only/m{i}_{end}.mrc" for i in range(3)))
    assert len(paths("only")) == 3


def test_what_a_shell_makes_of_a_pattern_counts_as_a_pattern() -> None:
    named = touch(*(f"d/m{i}{end}.mrc" for i in range(3) for end in RELION), "d/other.txt")[:-1]
    found = find(sorted(named))
    assert [item.path.name for item in found.micrographs] == ["m0.mrc", "m1.mrc", "m2.mrc"]
    assert len(found.companions) == 12


def test_named_one_by_one_or_in_a_list_they_are_taken() -> None:
    touch(*(f"d/m{i}{end}.mrc" for i in range(3) for end in RELION))
    assert paths("d/m0_PS.mrc", "d/m0.mrc", "d/m1_noDW.mrc", "d/m1.mrc") == [
        "d/m0.mrc", "d/m0_PS.mrc", "d/m1.mrc", "d/m1_noDW.mrc"
    ]  # fmt: skip
    assert "d/m2_EVN.mrc" in paths("d", "d/m2_EVN.mrc"), "beside a search, too"
    Path("list.star").write_text("data_\nloop_\n_rlnMicrographName\nd/m0.mrc\nd/m0_PS.mrc\n")
    assert paths("list.star") == ["d/m0.mrc", "d/m0_PS.mrc"]
    Path("list.txt").write_text("\n".join(f"d/m{i}{end}.mrc" for i in range(3) for end in RELION))
    assert len(paths("list.txt")) == 15


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (("x_EVN", "x_ODD", "y_even", "y_odd"), ("x_EVN", "x_ODD", "y_even", "y_odd")),
        (("x_DW", "x_EVN", "x_ODD", "x_PS"), ("x_DW",)),
        (("x_DW", "x_noDW", "y_noDW"), ("x_DW", "y_noDW")),
        (("x_PS", "y_PS"), ("x_PS", "y_PS")),
        (("Ucsf_stack_1142_DW", "grid_odd"), ("Ucsf_stack_1142_DW", "grid_odd")),
    ],
)
def test_only_what_accompanies_something_that_is_there_is_left_out(
    there: tuple[str, ...], taken: tuple[str, ...]
) -> None:
    touch(*(f"d/{name}.mrc" for name in there))
    assert paths("d") == sorted(f"d/{name}.mrc" for name in taken)


def test_a_pattern_of_companions_alone_takes_them() -> None:
    touch(*(f"d/m{i}{end}.mrc" for i in range(2) for end in RELION))
    assert paths("d/*_noDW.mrc") == ["d/m0_noDW.mrc", "d/m1_noDW.mrc"]
    even, odd = (discover(["d"], side=side) for side in ("even", "odd"))
    assert [item.path.name for item in (*even, *odd)] == ["m0_EVN.mrc", "m1_EVN.mrc", "m0_ODD.mrc", "m1_ODD.mrc"]


@pytest.mark.parametrize(
    ("folder", "stem", "exposure", "role"),
    [
        ("/p/Movies", "m_PS", ("/p/Movies", "m"), Role.MADE_FROM_IT),
        ("/p/average/even", "m", ("/p", "m"), Role.HALF),
        ("/p/average", "m", ("/p", "m"), Role.MICROGRAPH),
        ("/p/even", "m_EVN", ("/p", "m"), Role.HALF),
        ("/p", "m_DW_EVN", ("/p", "m"), Role.HALF),
        ("/p", "even", ("/p", "even"), Role.MICROGRAPH),
        ("/p", "_odd", ("/p", "_odd"), Role.MICROGRAPH),
    ],
)
def test_a_name_tells_the_exposure(folder: str, stem: str, exposure: tuple[str, str], role: Role) -> None:
    assert exposure_name(folder, stem)[:2] == (exposure, role)


@pytest.mark.parametrize("seed", range(5))
def test_one_exposure_is_never_on_both_sides_of_the_split(seed: int) -> None:
    for i in range(4):
        image(f"a/m{i}.mrc", i)
        image(f"a/m{i}_noDW.mrc", i)
    named = [f"a/m{i}{end}.mrc" for i in range(4) for end in ("_noDW", "")][:-1]  # not all: the last was not named
    convert(ConvertRequest(tuple(named), Path("s"), patch_size=32, test_split=0.4, seed=seed))
    with open_store(Path("s")) as store:
        sides: dict[str, set[str]] = {}
        for entry in store.manifest.micrographs:
            sides.setdefault(entry.name.split("_")[0].removesuffix(".mrc"), set()).add(entry.split)
    assert sorted(sides) == ["m0", "m1", "m2", "m3"]
    assert all(len(found) == 1 for found in sides.values())
    assert {side for found in sides.values() for side in found} == {"train", "test"}


def test_what_two_jobs_made_of_one_movie_is_one_exposure() -> None:
    touch(*(f"MotionCorr/job00{job}/Movies/m{i}.mrc" for job in (2, 5) for i in range(3)))
    inputs = list_inputs(ConvertRequest(("MotionCorr",), Path("s")))
    assert len(inputs.pairs) == 6
    assert sorted(inputs.exposures) == [0, 0, 1, 1, 2, 2]


def test_a_link_and_its_file_are_one_exposure() -> None:
    for i in range(3):
        image(f"d/m{i}.mrc", i)
    Path("d/other.mrc").symlink_to("m0.mrc")
    Path("e").mkdir()
    Path("e/hard.mrc").hardlink_to("d/m1.mrc")
    inputs = list_inputs(ConvertRequest(("d", "e"), Path("s")))
    found = dict(zip((pair.noisy.path.name for pair in inputs.pairs), inputs.exposures, strict=True))
    assert found["other.mrc"] == found["m0.mrc"] and found["hard.mrc"] == found["m1.mrc"]
    assert len(set(inputs.exposures)) == 3


def test_exposures_of_one_file_each_are_split_as_ever() -> None:
    for count in (1, 2, 7):
        assert pick_test_exposures(list(range(count)), 0.3, 4) == pick_test_micrographs(count, 0.3, 4)
    assert pick_test_exposures([0, 0, 0], 0.5, 0) == frozenset(), "one exposure alone"


def test_the_commands_say_how_many_were_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(3):
        for end in RELION:
            image(f"d/m{i}{end}.mrc", i)
    assert run(["convert", "d", "-o", "s", "--patch-size", "32"]) == 0
    out, talk = capsys.readouterr()
    assert "12 files that only accompany micrographs are left out (" in talk
    assert "; 12 files that accompany others left out" in out
    assert "of 3 micrographs" in out


def test_inspect_counts_them(capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(2):
        for end in RELION:
            image(f"d/m{i}{end}.mrc", i)
    run(["inspect", "--quick", "d"])
    said = "".join(capsys.readouterr())
    assert "10 files looked at" in said
    assert "8 of them only accompany a micrograph: convert and denoise leave them out" in said


def test_a_watch_leaves_them_out_whichever_comes_first(tmp_path: Path) -> None:
    from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
    from cryoplug.models.registry import model_spec
    from cryoplug.workflows.denoise import DenoiseRequest, denoise

    weights = {name: np.zeros(t.shape, np.float32) for name, t in model_spec("cryo_cnn").build().state_dict().items()}
    save_checkpoint(Path("c/epoch_0001"), Checkpoint("cryo_cnn", weights, normalize="zscore"), 0.5)
    for end in ("_PS", "_EVN", "_ODD", ""):
        image(f"d/m{end}.mrc")
    told: list[str] = []
    timing = {"watch": True, "settle_s": 0.0, "poll_s": 0.1, "idle_exit_s": 0.3}
    request = DenoiseRequest(("d",), Path("c"), Path("out"), device="cpu", threads=1, **timing)  # type: ignore[arg-type]
    result = denoise(request, note=told.append)
    assert [item.input.name for item in result.files] == ["m.mrc"]
    assert any("files that only accompany a micrograph" in text for text in told)
    assert any(text.startswith("3 files that only accompany micrographs are left out") for text in told)
