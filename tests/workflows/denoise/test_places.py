"""Where results go: never onto an input, never outside of the output folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cryoplug.errors import InputError, UsageError
from cryoplug.workflows.denoise import DenoiseRequest, denoise
from workflows.denoise.denoising import go, micrographs, statuses


def as_same_file(here: Path) -> str:
    return "."


def as_symlink(here: Path) -> str:
    (here / "out").mkdir()
    (here / "out" / "a.mrc").symlink_to(here / "a.mrc")
    return "out"


def as_hard_link(here: Path) -> str:
    (here / "out").mkdir()
    os.link(here / "a.mrc", here / "out" / "a.mrc")
    return "out"


def as_linked_folder(here: Path) -> str:
    (here / "out").symlink_to(here)
    return "out"


@pytest.mark.parametrize("how", [as_same_file, as_symlink, as_hard_link, as_linked_folder])
def test_an_input_is_never_overwritten(here, checkpoints, how):
    (path,) = micrographs(here, "a")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="inputs are never overwritten"):
        go(checkpoints[0], "a.mrc", output=how(here), overwrite=True)
    assert path.read_bytes() == before


def test_the_output_of_one_input_may_not_be_another_input(here, checkpoints):
    (here / "out").mkdir()
    micrographs(here, "a")
    micrographs(here / "out", "b")
    with pytest.raises(UsageError, match="inputs are never overwritten"):
        denoise(DenoiseRequest(("a.mrc", "out/b.mrc"), checkpoints[0], Path("out"), device="cpu"))


def test_a_link_in_the_output_folder_cannot_lead_outside(here, checkpoints):
    (here / "mics" / "sub").mkdir(parents=True)
    micrographs(here / "mics" / "sub", "a")
    (here / "elsewhere").mkdir()
    (here / "out").mkdir()
    (here / "out" / "sub").symlink_to(here / "elsewhere")
    with pytest.raises(UsageError, match="outside of the output folder"):
        go(checkpoints[0], "mics")
    assert not list((here / "elsewhere").iterdir())


def test_the_longest_name_works_and_a_longer_one_is_named_before_the_work(here, checkpoints):
    longest = "x" * 213
    micrographs(here, [longest])
    assert statuses(go(checkpoints[0], f"{longest}.mrc")) == ["done"]
    micrographs(here, [longest + "y"])
    with pytest.raises(UsageError, match=r"a name of 218 bytes \(allowed: 217\)"):
        go(checkpoints[0], f"{longest}y.mrc")


def test_an_output_that_is_a_file_is_refused(here, checkpoints):
    micrographs(here, "a")
    (here / "out").write_text("mine")
    with pytest.raises(UsageError, match="this is a file"):
        go(checkpoints[0], "a.mrc")


def test_results_within_the_folder_of_inputs_are_not_denoised_again(here, checkpoints):
    (here / "mics").mkdir()
    micrographs(here / "mics", "ab")
    assert statuses(go(checkpoints[0], "mics", output="mics/denoised")) == ["done", "done"]
    again = go(checkpoints[0], "mics", output="mics/denoised")
    assert statuses(again) == ["skipped", "skipped"]


def test_a_folder_that_holds_nothing_but_results_is_no_input(here, checkpoints):
    micrographs(here, "a")
    go(checkpoints[0], "a.mrc")
    with pytest.raises(InputError, match="result of an earlier run"):
        go(checkpoints[0], "out")
