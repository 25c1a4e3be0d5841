"""`benchmarks/picking_own.py` reads anyone's picks: boxes, files for each micrograph, and one list for all."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cryoplug.formats.mrc import write_mrc

pytest.importorskip("scipy")
pytest.importorskip("PIL")
FOLDER = Path(__file__).parents[2] / "benchmarks"
CENTRES = np.array([[10.0, 42.0], [30.5, 7.0]])


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load the script's module, which is no part of the package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("picking_own")


@pytest.fixture
def micrographs(tmp_path: Path) -> Path:
    folder = tmp_path / "micrographs"
    folder.mkdir()
    for name in ("mic_1", "mic_10"):
        write_mrc(folder / f"{name}.mrc", np.zeros((64, 80), np.float32), pixel_size_angstrom=1.5, label="test")
    return folder


def star(names: list[str] | None = None) -> str:
    columns = ["rlnCoordinateX", "rlnCoordinateY", *(["rlnMicrographName"] if names else [])]
    rows = [f"{x} {y} {names[number] if names else ''}" for number, (y, x) in enumerate(CENTRES)]
    return "\n".join(["data_", "", "loop_", *(f"_{one} #{at + 1}" for at, one in enumerate(columns)), *rows, ""])


def test_a_box_and_a_star_file_of_the_same_particles_give_the_same_places(
    own: ModuleType, micrographs: Path, tmp_path: Path
) -> None:
    picks = tmp_path / "picks"
    picks.mkdir()
    (picks / "mic_1_manualpick.star").write_text(star())
    (picks / "mic_10.box").write_text("".join(f"{x - 8}\t{y - 10}\t16\t20\n" for y, x in CENTRES))
    first, second = own.own_micrographs([micrographs], picks)
    assert (first.name, second.name) == ("mic_1", "mic_10")
    np.testing.assert_array_equal(first.centres, CENTRES)
    np.testing.assert_array_equal(second.centres, CENTRES)
    assert first.shape == (64, 80)
    assert first.pixel_size_angstrom == 1.5
    assert first.pixels(own.LEVEL).shape == (64, 80)


def test_one_list_is_shared_out_and_a_micrograph_without_picks_is_told(
    own: ModuleType, micrographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "particles.star").write_text(star(["Job1/mic_10.mrc", "Job1/mic_10.mrc"]))
    (found,) = own.own_micrographs([micrographs], tmp_path / "particles.star", 2.0)
    assert found.name == "mic_10"
    assert found.pixel_size_angstrom == 2.0
    np.testing.assert_array_equal(found.centres, CENTRES)
    assert "1 micrographs have no picks" in capsys.readouterr().out


def test_two_files_for_one_micrograph_are_refused(own: ModuleType, micrographs: Path, tmp_path: Path) -> None:
    for name in ("mic_1_auto.star", "mic_1_manual.star"):
        (tmp_path / name).write_text(star())
    with pytest.raises(SystemExit, match=r"2 files fit mic_1: mic_1_auto\.star, mic_1_manual\.star; leave one"):
        list(own.own_micrographs([micrographs], tmp_path))
