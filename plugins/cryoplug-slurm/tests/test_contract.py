"""The commands keep the laws that cryoplug's own commands keep; what is passed on is declared nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pytest
from cryoplug.cli.main import cli, run
from cryoplug.testing import CommandContract
from cryoplug.testing.command import MISSING
from made_project import COUNT, WORDS, call, make
from slurm_here import Cluster

from cryoplug_slurm.commands import submit


class SubmitContract(CommandContract):
    """Laws of a command that prints its script here; tests/test_slurm.py submits."""

    @pytest.fixture(autouse=True)
    def in_a_project(self, here: Path) -> None:
        self.project = make(here)


class TestSubmitDenoise(SubmitContract):
    command = "slurm submit denoise"

    def arguments(self, folder: Path) -> Sequence[object]:
        return ["--print", "--tasks", "2", *WORDS]

    def missing_input(self, folder: Path) -> Sequence[object]:
        return ["--print", f"{MISSING}.mrc", *WORDS[1:]]


class TestSubmitTrain(SubmitContract):
    command = "slurm submit train"

    def arguments(self, folder: Path) -> Sequence[object]:
        (folder / "store").mkdir()
        for name in ("noisy", "clean"):
            np.zeros((4, 24, 24), np.float32).tofile(folder / "store" / f"{name}_train.bin")
        return ["--print", folder / "store", "--patch-size", "24", "--save"]

    def missing_input(self, folder: Path) -> Sequence[object]:
        return ["--print", MISSING, "--save"]


class TestTemplate(CommandContract):
    command = "slurm template"
    missing_input_code = 2
    """It reads no file: another word than ``denoise`` or ``train`` is wrong usage."""

    def arguments(self, folder: Path) -> Sequence[object]:
        return ["denoise"]

    def missing_input(self, folder: Path) -> Sequence[object]:
        return [MISSING]


class JobsContract(CommandContract):
    """Laws of a command that takes numbers of jobs."""

    missing_input_code = 2
    """Whoever names another job misspelt its number."""

    @pytest.fixture(autouse=True)
    def on_a_cluster(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def arguments(self, folder: Path) -> Sequence[object]:
        return [self.cluster.run("sbatch", "--parsable", "--output=/dev/null", "--wrap=true").strip()]

    def missing_input(self, folder: Path) -> Sequence[object]:
        return [MISSING]


class TestFollow(JobsContract):
    command = "slurm follow"


class TestCancel(JobsContract):
    command = "slurm cancel"


def options(command: click.Command) -> dict[str, click.Option]:
    found = [item for item in command.params if isinstance(item, click.Option)]
    return {name: item for item in found for name in (*item.opts, *item.secondary_opts)}


EVERYWHERE = {"--json", "--quiet", "-q", "--help", "-h"}
"""Options of every command: submit has its own."""


def core(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


@pytest.mark.parametrize("name", ["denoise", "train"])
def test_no_option_that_is_meant_for_the_command_is_taken_on_the_way(name: str) -> None:
    assert options(submit.commands[name]).keys() & options(core(name)).keys() <= EVERYWHERE


@pytest.mark.parametrize(
    ("name", "refused"),
    [("denoise", {"--shard", "--dry-run", "--watch", "--poll", "--settle", "--idle-exit"}), ("train", {"--dry-run"})],
)
def test_the_help_lists_what_is_passed_on_as_the_command_declares_it(
    name: str, refused: set[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("submit", name, "--help") == 0
    own, heading, passed_on = capfd.readouterr().out.partition(f"Options of cryoplug {name}, which are passed on:\n")
    assert heading and "--sbatch" in own
    listed = {word.strip(",;.()") for line in passed_on.splitlines() for word in line.split() if word.startswith("-")}
    wanted = {max(item.opts, key=len) for item in core(name).params if isinstance(item, click.Option)}
    assert not wanted - refused - EVERYWHERE - listed, "as in its own help"
    assert "--json" not in passed_on and not [flag for flag in refused if f"  {flag} " in passed_on]
    default = "[default: general]" if name == "denoise" else "[default: cryo_cnn]"
    assert default in " ".join(passed_on.split())


def test_a_configuration_file_reaches_the_job(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make(here)
    Path("my defaults.toml").write_text('[denoise]\noutput = "out"\ncheckpoint = "run"\n')
    assert run(["--config", "my defaults.toml", "slurm", "submit", "denoise", "--print", "mics"]) == 0
    said = capfd.readouterr().out
    assert f"-m cryoplug --config '{here / 'my defaults.toml'}' denoise mics &" in said
    Path("my defaults.toml").write_text('[denoise]\noutput = "out"\nwatch = true\n')
    assert run(["--config", "my defaults.toml", "slurm", "submit", "denoise", "--print", "mics"]) == 2
    assert "--watch" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("denoise", "mics"), 2, "--output"),
        (("denoise", *WORDS, "--strengt", "2"), 2, "--strengt"),
        (("denoise", *WORDS, "--strength", "2"), 2, "--strength"),
        (("denoise", *WORDS, "--watch"), 2, "--watch"),
        (("denoise", *WORDS, "--shard", "0/2"), 2, "--shard"),
        (("denoise", *WORDS, "--dry-run"), 2, "--dry-run"),
        (("denoise", *WORDS, "--template", "nowhere.sbatch"), 4, "nowhere.sbatch"),
        (("denoise", "mics", "-o", "out", "--checkpoint", "nowhere"), 4, "nowhere"),
        (("denoise", "empty", "-o", "out"), 4, "empty"),
        (("train", "store"), 2, "give --save"),
        (("train", "store", "--save", "--dry-run"), 2, "cryoplug train --dry-run"),
        (("train", "--save"), 2, "no training data: give the folder"),
        (("train", "empty", "--save"), 4, "empty"),
        (("train", "store", "--save", "--epochs", "many"), 2, "many"),
    ],
)
def test_what_the_command_would_refuse_is_refused_before_anything_is_submitted(
    words: tuple[str, ...], code: int, said: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make(here)
    Path("empty").mkdir()
    assert call("submit", *words) == code
    assert said in capfd.readouterr().err
    assert not Path("slurm-logs").exists()


def test_what_another_job_will_write_is_not_looked_for(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["later.star", "-o", "out", "--sbatch=--dependency=afterok:7", "--print"]
    assert call("submit", "denoise", *words) == 0
    assert "#SBATCH --dependency=afterok:7\n" in capfd.readouterr().out
    assert call("submit", "train", "later", "--save", "--sbatch=-d afterok:7", "--print") == 0


def test_micrographs_that_are_named_and_missing_are_counted(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make(here)
    assert call("submit", "denoise", "--print", *WORDS, "lost.mrc") == 0
    assert f"1 of {COUNT + 1} micrographs are not there, first lost.mrc" in capfd.readouterr().err


def test_a_template_with_an_unknown_field_is_refused(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make(here)
    Path("mine").write_text("#!/bin/bash\n@COMAND@\n")
    assert call("submit", "denoise", *WORDS, "--template", "mine") == 2
    assert "@COMAND@" in capfd.readouterr().err
