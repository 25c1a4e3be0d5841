"""``cryoplug.denoise``: an array gives an array, files give what the command gives, and a record of it."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest

import cryoplug
from cryoplug.errors import (
    InputError,
    MissingInputError,
    PixelError,
    ShapeError,
    StorageError,
    UsageError,
)
from cryoplug.formats.mrc import write_mrc

pytestmark = pytest.mark.usefixtures("here")


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(50, 4, (96, 120)).astype(np.float32)


def written(*names: str, angstrom: float | None = 2.6) -> list[Path]:
    for seed, name in enumerate(names):
        write_mrc(Path(name), pixels(seed), pixel_size_angstrom=angstrom)
    return [Path(name) for name in names]


def test_an_array_gives_what_its_file_gives() -> None:
    (path,) = written("a.mrc", angstrom=1.3)
    done = cryoplug.denoise(path, "out", target="particles", highpass=500)
    said: list[str] = []
    image = cryoplug.denoise(pixels(), pixel_size_angstrom=1.3, target="particles", highpass=500, note=said.append)
    of_file = mrcfile.read("out/a.mrc")
    assert image.dtype == np.float32 and np.allclose(image, of_file, atol=1e-4 * np.ptp(of_file))
    assert not np.allclose(image, cryoplug.denoise(pixels(), pixel_size=1.3)), "the options matter"
    assert said == [remark.removeprefix("a.mrc: ") for remark in done.remarks]


@pytest.mark.parametrize("kind", ["int16", "uint8", "float64", ">f4", "bool"])
def test_an_array_may_be_of_any_real_type(kind: str) -> None:
    image = (pixels() > 50).astype(kind) if kind == "bool" else pixels().astype(kind)
    same = image.astype(np.float32)
    given, wanted = (cryoplug.denoise(item, pixel_size_angstrom=2.6, device="cpu") for item in (image, same))
    assert np.array_equal(given, wanted)


def test_what_is_wrong_with_an_array_is_said_in_its_own_words() -> None:
    with pytest.raises(UsageError, match=r"pixel size not given.*pixel_size_angstrom"):
        cryoplug.denoise(pixels())
    with pytest.raises(UsageError, match="two names of the same"):
        cryoplug.denoise(pixels(), pixel_size=1, pixel_size_angstrom=1)
    with pytest.raises(UsageError, match="output, star: for files, not for an array"):
        cryoplug.denoise(pixels(), "out", pixel_size=1, star="a.star")  # type: ignore[call-overload]
    with pytest.raises(ShapeError, match=r"shape \(1, 96, 120\)"):
        cryoplug.denoise(pixels()[np.newaxis], pixel_size=2.6)
    with pytest.raises(PixelError, match="complex64"):
        cryoplug.denoise(pixels().astype(np.complex64), pixel_size=2.6)
    with pytest.raises(PixelError, match="NaN"):
        cryoplug.denoise(np.where(pixels() > 60, np.nan, pixels()), pixel_size=2.6)


def test_files_leave_what_the_command_leaves_and_a_record_of_it() -> None:
    written("m/a.mrc", "m/b.mrc")
    Path("m/c.mrc").write_bytes(b"no micrograph")
    seen: list[str] = []
    done = cryoplug.denoise(
        ["m/*.mrc"], Path("out"), star="out/all.star", progress=lambda result: seen.append(result.status)
    )
    assert seen == [item.status for item in done.files] == ["done", "done", "failed"]
    assert done.outputs == (Path("out/a.mrc"), Path("out/b.mrc")) and all(path.is_file() for path in done.outputs)
    assert done.lists == (Path("out/all.star"),) and done.page == Path("out/report.html") and done.exit_code == 3
    assert [item.input for item in done.failures] == [Path("m/c.mrc")] and "general model" in done.remarks[0]
    assert str(done).splitlines()[0] == "2 done, 1 failed" and "failed: m/c.mrc: " in str(done)
    assert "more" not in str(done)
    assert repr(done) == "<Outcome: 2 done, 1 failed>"
    with pytest.raises(InputError, match=r"^m/c\.mrc: "):
        done.raise_for_failures()


def test_a_second_call_skips_what_is_finished() -> None:
    (path,) = written("a.mrc")
    first, second = (cryoplug.denoise(path, "out") for _ in range(2))
    assert (first.files[0].status, second.files[0].status) == ("done", "skipped")
    assert first.outputs == second.outputs and second.exit_code == 0
    second.raise_for_failures()


def test_where_nothing_can_be_used_an_error_says_why() -> None:
    Path("c.mrc").write_bytes(b"no micrograph")
    with pytest.raises(InputError, match=r"c\.mrc: ") as caught:
        cryoplug.denoise("c.mrc", "out")
    assert caught.value.exit_code == 4
    with pytest.raises(InputError) as caught:
        cryoplug.denoise([f"missing{number}.mrc" for number in range(9)], "out")
    assert str(caught.value).splitlines()[-1] == "and 4 more" and "missing0.mrc: there is no such file" in str(
        caught.value
    )
    with pytest.raises(MissingInputError):
        cryoplug.denoise("a.mrc", "out", checkpoint="no_run")
    written("a.mrc")
    Path("blocked").write_text("a file")
    with pytest.raises(UsageError, match="this is a file"):
        cryoplug.denoise("a.mrc", "blocked")
    with pytest.raises((StorageError, UsageError)):
        cryoplug.denoise("a.mrc", "blocked/below")


def test_names_may_come_as_text_path_list_generator_or_table() -> None:
    paths = written("a.mrc", "b.mrc")
    for number, inputs in enumerate(
        ("*.mrc", [*map(str, paths)], iter(paths), np.array([*map(str, paths)]), np.array(paths, dtype=object))
    ):
        done = cryoplug.denoise(inputs, f"out{number}", previews=False)  # type: ignore[call-overload, unused-ignore]
        assert [item.input.name for item in done.files] == ["a.mrc", "b.mrc"]


@pytest.mark.parametrize("inputs", [None, 3, [3], [np.zeros((3, 3))]])
def test_what_names_no_file_is_refused_by_its_type(inputs: object) -> None:
    with pytest.raises(UsageError, match=r"^inputs: (NoneType|int|ndarray) \(allowed: a path"):
        cryoplug.denoise(inputs, "out")  # type: ignore[call-overload]


def test_a_misspelt_option_is_refused_by_name() -> None:
    for inputs in ("a.mrc", pixels()):
        with pytest.raises(TypeError, match="unexpected keyword argument 'pixelsize'"):
            cryoplug.denoise(inputs, pixelsize=1)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="output is not given"):
        cryoplug.denoise("a.mrc")  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="gpu='0,1'"):
        cryoplug.denoise("a.mrc", "out", gpu="0,1")  # type: ignore[call-overload]


def test_general_is_the_model_and_a_folder_of_that_name_is_reached_by_a_path() -> None:
    (path,) = written("a.mrc")
    Path("general").mkdir()
    said: list[str] = []
    cryoplug.denoise(pixels(), pixel_size=2.6, note=said.append)
    assert any("the folder of that name here is ./general" in text for text in said)
    with pytest.raises(InputError, match="general"):
        cryoplug.denoise(path, "out", checkpoint="./general")


def test_a_launcher_s_share_is_taken_as_the_command_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    written("a.mrc", "b.mrc", "c.mrc", "d.mrc")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    part = cryoplug.denoise("*.mrc", "out", previews=False)
    assert any("SLURM_ARRAY_TASK_ID says so" in text for text in part.remarks)
    whole = cryoplug.denoise("*.mrc", "out", shard="0/1", previews=False)
    assert len(part.files) < len(whole.files) == 4


def test_halves_are_named_in_python_as_on_the_command_line() -> None:
    for side in ("EVN", "ODD"):
        written(f"{side}/a.mrc")
    sides = {"even": "EVN/a.mrc", "odd": Path("ODD/a.mrc")}
    with pytest.raises(UsageError, match="--even and --odd belong to --halves"):
        cryoplug.denoise((), "out", **sides)
    written("EVN/a.mrc")
    scene = np.kron(np.random.default_rng(3).normal(0, 9, (12, 15)), np.ones((8, 8)))
    for seed, name in enumerate(sides.values()):
        write_mrc(Path(name), (pixels(seed) + scene).astype(np.float32), pixel_size_angstrom=2.6)
    done = cryoplug.denoise((), "out", halves=True, **sides)
    assert [item.status for item in done.files] == ["done"]
