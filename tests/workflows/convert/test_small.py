"""Few and small micrographs: what is chosen for them, and what is said about what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoplug.cli.main import run
from cryoplug.formats.mrc import write_mrc
from cryoplug.store.pairs import open_store
from cryoplug.workflows.convert import ConvertRequest, convert
from cryoplug.workflows.convert.patch_fit import fitting_patch_size


def images(folder: Path, *shapes: tuple[int, int], angstrom: float = 2.0) -> Path:
    folder.mkdir(parents=True)
    for index, shape in enumerate(shapes):
        pixels = np.random.default_rng(index).normal(10, 1, shape).astype(np.float32)
        write_mrc(folder / f"m{index}.mrc", pixels, pixel_size_angstrom=angstrom)
    return folder


@pytest.mark.parametrize(
    ("side", "size"),
    [(1023, 384), (900, 384), (512, 256), (300, 128), (128, 64), (127, 96), (64, 64), (33, 32), (7, 7)],
)
def test_two_patches_lie_side_by_side_where_they_are_not_too_small(side: int, size: int) -> None:
    assert fitting_patch_size(side) == size
    assert size <= side


def test_a_patch_size_is_chosen_by_the_smallest_micrograph(tmp_path: Path) -> None:
    folder = images(tmp_path / "in", (300, 400), (260, 500), (300, 300))
    found = convert(ConvertRequest((str(folder),), tmp_path / "s"))
    assert [item.status for item in found.files] == ["done"] * 3
    assert (found.details["patch_size"], found.details["stride"]) == (128, 64)
    with open_store(tmp_path / "s") as store:
        assert store.patch_shape == (128, 128)
    again = convert(ConvertRequest((str(folder),), tmp_path / "s"))
    assert again.details["complete"], "the choice follows from the data"


@pytest.mark.parametrize("odd", [(1, 1), (3, 300), (60, 60)])
def test_a_much_smaller_image_does_not_decide_for_the_others_and_fails_alone(
    tmp_path: Path, odd: tuple[int, int]
) -> None:
    folder = images(tmp_path / "in", (300, 300), odd, (260, 500))
    found = convert(ConvertRequest((str(folder),), tmp_path / "s"))
    assert (found.exit_code, found.details["patch_size"]) == (3, 128)
    assert [item.status for item in found.files] == ["done", "failed", "done"]


def test_the_usual_size_stays_where_it_fits(tmp_path: Path) -> None:
    folder = images(tmp_path / "in", (1030, 1100))
    found = convert(ConvertRequest((str(folder),), tmp_path / "s"))
    assert (found.details["patch_size"], found.details["stride"], found.details["train"]) == (1024, 512, 1)
    whole = convert(ConvertRequest((str(folder),), tmp_path / "w", store="whole"))
    assert whole.details["patch_size"] == 256


def test_the_size_that_counts_is_that_after_the_crop(tmp_path: Path) -> None:
    folder = images(tmp_path / "in", (1100, 1100))
    found = convert(ConvertRequest((str(folder),), tmp_path / "s", angpix=6.0))
    assert (found.exit_code, found.details["patch_size"]) == (0, fitting_patch_size(367))


def test_the_stride_follows_the_patch_size(tmp_path: Path) -> None:
    folder = images(tmp_path / "in", (256, 256))
    for size in (64, 63, 1):
        found = convert(
            ConvertRequest((str(folder),), tmp_path / f"s{size}", patch_size=size, stride=None if size > 1 else 50)
        )
        assert found.details["stride"] == (50 if size == 1 else size // 2)


def test_a_size_that_was_asked_for_is_not_changed(tmp_path: Path) -> None:
    folder = images(tmp_path / "in", (100, 100), (300, 300), (300, 300))
    found = convert(ConvertRequest((str(folder),), tmp_path / "s", patch_size=128))
    assert [item.status for item in found.files] == ["failed", "done", "done"]
    assert "smaller than one patch of 128x128; give --patch-size 100 or less" in found.files[0].message


@pytest.mark.parametrize(
    ("shapes", "more", "said"),
    [
        ([(256, 256)], (), "no test pairs: --test-split takes whole exposures, and leaves the only one for training"),
        ([(256, 256)] * 2 + [(50, 90)], ("--patch-size", "64"), "1 of 3 inputs failed"),
        ([(256, 300)] * 3, ("--patch-size", "128", "--stride", "128"), "15 % of the pixels are beyond the last patch"),
    ],
)
def test_the_last_line_says_what_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shapes: list[tuple[int, int]], more: tuple[str, ...], said: str
) -> None:
    folder = images(tmp_path / "in", *shapes)
    run(["convert", str(folder), "-o", str(tmp_path / "s"), *more])
    assert said in capsys.readouterr().out.splitlines()[-1]


def test_nothing_is_said_where_nothing_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = images(tmp_path / "in", (256, 256), (256, 256))
    assert run(["convert", str(folder), "-o", str(tmp_path / "s")]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert ";" not in line and "9 training and 9 test pairs of 128 px, of 2 micrographs" in line
    assert run(["convert", str(folder), "-o", str(tmp_path / "t"), "--test-split", "0"]) == 0
    assert ";" not in capsys.readouterr().out.splitlines()[-1], "none was asked for"
