"""The command line: exit codes, spellings, configuration files, and no traceback for what a user causes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cryoplug.cli import main as cli_main
from cryoplug.cli.options import CryoplugCommand
from cryoplug.cli.output import printable_name
from cryoplug.errors import CryoplugError, Stopped


def every_error_class() -> list[type[CryoplugError]]:
    found, todo = [], [CryoplugError]
    while todo:
        found.append(todo.pop())
        todo += found[-1].__subclasses__()
    return [item for item in found if not issubclass(item, Stopped)]


@pytest.fixture
def failing_command(monkeypatch: pytest.MonkeyPatch):
    """Make `cryoplug train` raise what the test wants."""
    raised: list[BaseException] = []

    @click.command(cls=CryoplugCommand)
    def train() -> None:
        raise raised[0]

    monkeypatch.setattr(cli_main.LazyGroup, "get_command", lambda self, ctx, name: train)
    return raised


@pytest.mark.parametrize("error_class", every_error_class(), ids=lambda item: item.__name__)
def test_every_error_becomes_a_sentence_and_its_exit_code(failing_command, capsys, error_class) -> None:
    failing_command.append(error_class("a.mrc: broken; mend it"))
    assert cli_main.run(["train"]) == error_class.exit_code
    captured = capsys.readouterr()
    assert captured.err == "cryoplug train: error: a.mrc: broken; mend it\n"
    assert captured.out == ""


@pytest.mark.parametrize(("number", "exit_code"), [(2, 130), (10, 138), (15, 143)])
def test_a_stop_by_signal_exits_with_128_plus_its_number(failing_command, capsys, number, exit_code) -> None:
    failing_command.append(Stopped(number, "the same command goes on"))
    assert cli_main.run(["train"]) == exit_code
    assert "the same command goes on" in capsys.readouterr().err


def test_no_more_threads_is_a_lack_of_memory_and_no_bug(failing_command, capsys) -> None:
    failing_command.append(RuntimeError("can't start new thread"))
    assert cli_main.run(["train"]) == 7
    assert "memory or threads" in capsys.readouterr().err


def test_a_bug_shows_its_traceback_only_with_debug(failing_command, capsys) -> None:
    failing_command.append(ZeroDivisionError("division by zero"))
    assert cli_main.run(["train"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert cli_main.run(["--debug", "train"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_wrong_usage_exits_2_and_names_the_flag(capsys) -> None:
    assert cli_main.run(["inspect", "--no-such-flag"]) == 2
    assert "--no-such-flag" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("denoize", "Did you mean 'denoise'?"),
        ("inspekt", "Did you mean 'inspect'?"),
        ("xyz", "No such command 'xyz'."),
        ("--denoise", "No such option '--denoise'."),
    ],
)
def test_a_misspelt_command_is_answered_with_the_one_that_was_meant(typed: str, answer: str, capsys) -> None:
    assert cli_main.run([typed]) == 2
    said = capsys.readouterr().err
    assert answer in said
    assert ("Did you mean" in said) == ("Did you mean" in answer)


def test_flags_may_be_spelled_with_underscores_but_values_stay_as_they_are() -> None:
    @click.command(cls=CryoplugCommand)
    @click.option("--val-split")
    @click.argument("rest", nargs=-1)
    def command(val_split: str, rest: tuple[str, ...]) -> None:
        click.echo(f"{val_split} {rest}")

    from click.testing import CliRunner

    run = CliRunner().invoke(command, ["--val_split=a_b", "x_y", "--", "--val_split"])
    assert run.output == "a_b ('x_y', '--val_split')\n"


def test_a_flag_beats_the_environment_beats_the_file(tmp_path: Path, monkeypatch, capsys) -> None:
    @click.command(cls=CryoplugCommand)
    @click.option("--val-split", default=0.1)
    def train(val_split: float) -> None:
        click.echo(val_split)

    monkeypatch.setattr(cli_main.LazyGroup, "get_command", lambda self, ctx, name: train)
    config = tmp_path / "c.toml"
    config.write_text("[train]\nval-split = 0.2\n")

    def value(*flags: str) -> float:
        assert cli_main.run(["--config", str(config), "train", *flags]) == 0
        return float(capsys.readouterr().out)

    assert value() == 0.2
    monkeypatch.setenv("CRYOPLUG_TRAIN_VAL_SPLIT", "0.3")
    assert value() == 0.3
    assert value("--val_split", "0.4") == 0.4


def test_an_unknown_field_of_a_configuration_is_named(tmp_path: Path, capsys) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[inspect]\nspeed = 3\n")
    assert cli_main.run(["--config", str(config), "inspect", "x"]) == 2
    assert "[inspect] speed: unknown; allowed:" in capsys.readouterr().err


def test_help_imports_no_torch() -> None:
    code = "import sys; from cryoplug.cli.main import run; run(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_a_closed_pipe_is_silent() -> None:
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run(
        [sys.executable, "-m", "cryoplug", "--help"], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (run.stderr, run.returncode) == (b"", 141)


def test_a_file_name_cannot_forge_a_line() -> None:
    assert printable_name("mic\nERROR: x\x1b[2J") == "mic\\nERROR: x\\x1b[2J"


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        (["convert", "denoise"], "cryoplug convert"),
        (["--debug", "denoise", "x"], "cryoplug denoise"),
        (["relion", "convert", "--o", "x"], "cryoplug relion convert"),
        (["--nonsense"], "cryoplug"),
    ],
)
def test_an_error_begins_with_the_command_that_was_called(arguments: list[str], called: str) -> None:
    assert cli_main._called(arguments) == called
