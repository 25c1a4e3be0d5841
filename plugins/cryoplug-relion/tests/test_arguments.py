"""What RELION writes, and what it means."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import click
import pytest
from click.testing import CliRunner

from cryoplug_relion import commands
from cryoplug_relion.arguments import RelionCommand, gpu_option, job_options
from cryoplug_relion.supervisor import job_folder


def parsed(*arguments: str) -> dict[str, Any]:
    """Parse the arguments of a job that has two flags and a number besides."""
    found: dict[str, Any] = {}
    options = [
        *job_options(),
        click.Option(["--float16"], is_flag=True),
        click.Option(["--shuffle/--no-shuffle"], default=True),
        click.Option(["--merge-highres"], type=float),
        gpu_option(),
    ]
    command = RelionCommand("job", params=options, callback=lambda **fields: found.update(fields))
    done = CliRunner().invoke(command, ["--o", "External/job002/", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return found


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--float16"], True),
        (["--float16", "--j", "4"], True),
        (["--float16", "Yes"], True),
        (["--float16", "true"], True),
        (["--float16", "No"], False),
        (["--float16", "0"], False),
        ([], False),
    ],
)
def test_a_flag_may_have_no_value_or_yes_or_no(words: list[str], value: bool) -> None:
    assert parsed(*words)["float16"] is value


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--shuffle", "No"], False),
        (["--no_shuffle"], False),
        (["--no-shuffle", "No"], True),
        (["--shuffle", "--j", "2"], True),
    ],
)
def test_a_flag_with_an_opposite_means_it_when_it_is_no(words: list[str], value: bool) -> None:
    assert parsed(*words)["shuffle"] is value


@pytest.mark.parametrize("spelling", ["--in_mics", "--in-mics"])
@pytest.mark.parametrize("control", [[], ["--pipeline_control", "External/job002/"], ["--pipeline-control", "x"]])
def test_underscores_and_hyphens_mean_the_same(spelling: str, control: list[str]) -> None:
    found = parsed(spelling, "a.star", "--merge_highres", "8", "--j", "3", *control)
    assert (found["in_mics"], found["merge_highres"], found["threads"]) == ("a.star", 8, 3)
    assert str(found["folder"]) == "External/job002"


def test_other_arguments_come_last_and_win() -> None:
    assert parsed("--merge_highres", "8", "--j", "1", "--merge-highres=5", "--j", "6") | {} == parsed(
        "--merge_highres", "5", "--j", "6"
    )


@pytest.mark.parametrize(("words", "value"), [(["--gpu", "--j", "1"], None), (["--gpu", "2"], 2), ([], None)])
def test_gpu_may_be_empty(words: list[str], value: int | None) -> None:
    assert parsed(*words)["gpu"] == value


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (["denoise", "--o", "External/job002/", "--nonsense"], "External/job002"),
        (["denoise", "--bad", "--o=External/job003/"], "External/job003"),
        (["denoise", "--o", "a/", "--output", "b/"], "b"),
        (["denoise", "-o", "a/"], "a"),
        (["denoise", "--o"], None),
        (["denoise", "--o", "--in_mics"], None),
        (["denoise"], None),
    ],
)
def test_folder_is_found_among_wrong_arguments(arguments: list[str], folder: str | None) -> None:
    found = job_folder(arguments)
    assert (None if found is None else str(found)) == folder


@pytest.mark.parametrize("name", ["denoise", "train", "convert"])
def test_every_option_has_one_meaning(name: str) -> None:
    spellings = [opt for item in getattr(commands, name).params for opt in (*item.opts, *item.secondary_opts)]
    assert len(spellings) == len(set(spellings))


def test_commands_load_nothing_heavy_before_there_are_two_processes() -> None:
    code = "import sys, cryoplug_relion.commands; print(*sorted({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
