"""The laws of a command, on which scripts and tired people rely."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import click
import pytest
from click.core import ParameterSource

from cryoplug.cli.main import cli, run
from cryoplug.schemas import schema_of

HEAVY = (
    "h5py",
    "matplotlib",
    "mrcfile",
    "numpy",
    "pandas",
    "rich",
    "safetensors",
    "scipy",
    "tifffile",
    "torch",
    "triton",
)
"""Libraries that a command must import inside its function, when it runs, and not for its help."""
MISSING = "no_such_file"
MAX_PURPOSE = 100


@dataclass(frozen=True)
class Finished:
    """The result of a run of the command line."""

    code: int
    """Exit code."""
    stdout: str
    """Text on stdout: results."""
    stderr: str
    """Text on stderr: talk."""


class CommandContract:
    """Laws of a command; a subclass names it, and gives arguments to run it on small files.

    It runs in the way of a user, as ``cryoplug NAME``, but in this process.
    """

    command: ClassVar[str]
    """The words after ``cryoplug``: ``denoise``, ``plugins list``."""
    missing_input_code: ClassVar[int] = 4
    """Exit code if an input is missing."""

    def arguments(self, folder: Path) -> Sequence[object]:
        """Write small inputs into a folder and return the arguments of a run that succeeds and has a result.

        Parameters
        ----------
        folder
            Empty; outputs belong there, too.
        """
        raise NotImplementedError(f"{type(self).__name__}.arguments: say how cryoplug {self.command} is run")

    def missing_input(self, folder: Path) -> Sequence[object] | None:
        """Return the arguments of a run whose input, ``folder / MISSING`` (any ending), is not there.

        None for a command without inputs.
        """
        raise NotImplementedError(f"{type(self).__name__}.missing_input: name a file that is not there, or return None")

    # Laws of the help

    def test_help_says_purpose_and_an_example(self, capfd: pytest.CaptureFixture[str]) -> None:
        """One line of purpose, and ``Example:`` with a real command line."""
        command, _ = self._command()
        purpose, *others = inspect.cleandoc(command.help or "").split("\n\n")
        assert purpose.endswith(".") and "\n" not in purpose and len(purpose) <= MAX_PURPOSE, (
            f"the help begins with one line of purpose and an empty line, not with {purpose!r}"
        )
        wanted = ["Example:", "cryoplug", *self._words]
        shown = any(part.split()[: len(wanted)] == wanted for part in others)
        assert shown, f"the help has no paragraph '{' '.join(wanted)} ...'"
        for flag in ("--help", "-h"):
            done = self._run(capfd, flag)
            assert (done.code, done.stderr) == (0, "")
            assert purpose.split()[0] in done.stdout and "Example:" in done.stdout

    def test_every_option_is_explained(self) -> None:
        """In the list that ``--help`` shows."""
        command, context = self._command()
        silent = [
            item.opts[0] for item in command.get_params(context) if isinstance(item, click.Option) and not item.help
        ]
        assert not silent, f"options without help: {', '.join(silent)}"

    def test_help_imports_nothing_heavy(self) -> None:
        """In a process of its own, where nothing is imported yet."""
        code = (
            "import sys\nfrom cryoplug.cli.main import run\n"
            f"code = run({[*self._words, '--help']!r})\n"
            f"print('HEAVY', *sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)\nsys.exit(code)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        heavy = done.stderr.rpartition("HEAVY")[2].split()
        assert not heavy, f"--help imports {', '.join(heavy)}; import them inside the function"

    # Laws of usage

    def test_wrong_usage_exits_with_2_and_is_named(self, capfd: pytest.CaptureFixture[str]) -> None:
        """One sentence on stderr, nothing on stdout."""
        done = self._run(capfd, "--no-such-flag")
        assert done.code == 2, f"exit code {done.code}; it must be 2"
        assert "--no-such-flag" in _only_error(done) and not done.stdout

    def test_what_is_required_is_asked_for(self, capfd: pytest.CaptureFixture[str]) -> None:
        """Without arguments: exit code 2 and a sentence, unless nothing is required."""
        command, context = self._command()
        if any(item.required for item in command.get_params(context)):
            done = self._run(capfd)
            assert done.code == 2, f"exit code {done.code}; it must be 2"
            assert _only_error(done) and not done.stdout

    def test_option_names_may_be_spelled_with_underscores(self, capfd: pytest.CaptureFixture[str]) -> None:
        """As the founding program and RELION spell them."""
        for option in self._options():
            name = _flag(option)
            if "-" in name:
                spelled = "--" + name.replace("-", "_")
                values = [] if option.is_flag or option.count else ["1"] * option.nargs
                done = self._run(capfd, spelled, *values, "--help")
                assert done.code == 0, f"{spelled} is not taken for --{name}: use cls=CryoplugCommand ({done.stderr})"

    def test_environment_variables_set_every_option(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """``CRYOPLUG_COMMAND_FLAG``, spelled as the flag is."""
        command, context = self._command()
        for option in self._options():
            variable = self._variable(_flag(option))
            monkeypatch.setenv(variable, " ".join(["1"] * option.nargs))
            found = command.make_context(self._words[-1], [], parent=context.parent, resilient_parsing=True)
            source = found.get_parameter_source(str(option.name))
            assert source is ParameterSource.ENVIRONMENT, f"{variable} does not set --{_flag(option)}"
            monkeypatch.delenv(variable)

    def test_it_takes_json_from_the_environment(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So that a variable is not only parsed, but also used."""
        monkeypatch.setenv(self._variable("json"), "1")
        assert _records(self._run(capfd, *self.arguments(tmp_path)))

    def test_it_takes_json_from_a_configuration_file(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """``cryoplug --config FILE``, a table for the command, keys as the flags are spelled."""
        config = tmp_path / "config.toml"
        config.write_text(f"[{'.'.join(self._words)}]\njson = true\n", encoding="utf-8")
        (tmp_path / "run").mkdir()
        assert _records(self._run(capfd, *self.arguments(tmp_path / "run"), before=("--config", str(config))))

    # Laws of a run

    def test_a_run_ends_with_0_and_asks_nothing(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The result is on stdout; standard input is not read, because scripts have none."""
        monkeypatch.setattr(sys, "stdin", _NoInput())
        done = self._run(capfd, *self.arguments(tmp_path))
        assert done.code == 0, f"exit code {done.code}: {done.stderr}"
        assert done.stdout.strip(), "there is no result on stdout"
        assert "Traceback" not in done.stderr and "\r" not in done.stdout + done.stderr

    def test_json_is_one_record_a_line_on_stdout(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """Strict JSON and nothing else; each record has a type and a time, and fits the schema of its type."""
        assert _records(self._run(capfd, *self.arguments(tmp_path), "--json"))

    def test_it_ends_without_a_word_when_nobody_reads_its_results(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """``cryoplug ... | head -1``: with 141, as other programs do, and no error on stderr."""
        arguments = self.arguments(tmp_path)
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "w", encoding="utf-8") as unread, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", unread)
            done = self._run(capfd, *arguments, "--json")
        assert done.code == 141, f"exit code {done.code}; it must be 141 ({done.stderr})"
        assert "Traceback" not in done.stderr and "rror" not in done.stderr, done.stderr

    def test_quiet_leaves_nothing_but_the_results(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """With ``--quiet``, which every command inherits, nothing is printed on stderr."""
        done = self._run(capfd, *self.arguments(tmp_path), "--quiet")
        assert done.code == 0, f"exit code {done.code}: {done.stderr}"
        assert not done.stderr, f"--quiet says: {done.stderr}"
        assert done.stdout.strip(), "there is no result on stdout"

    def test_a_missing_input_is_named(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """In a sentence, with the right exit code and without a traceback."""
        arguments = self.missing_input(tmp_path)
        if arguments is None:
            command, context = self._command()
            inputs = [item.name for item in command.get_params(context) if isinstance(item, click.Argument)]
            assert not inputs, f"missing_input gives None, but the command takes {', '.join(map(str, inputs))}"
            return
        assert MISSING in " ".join(map(str, arguments)), f"missing_input must name a file {MISSING}"
        done = self._run(capfd, *arguments)
        assert done.code == self.missing_input_code, f"exit code {done.code}; it must be {self.missing_input_code}"
        assert MISSING in done.stdout + done.stderr, f"the missing file is not named: {done.stderr}"
        assert "Traceback" not in done.stderr and "unexpected" not in done.stderr, done.stderr

    @property
    def _words(self) -> list[str]:
        return self.command.split()

    def _run(self, capfd: pytest.CaptureFixture[str], *arguments: object, before: Sequence[str] = ()) -> Finished:
        capfd.readouterr()
        code = run([*before, *self._words, *map(str, arguments)])
        sys.stdout.flush()
        return Finished(code, *capfd.readouterr())

    def _command(self) -> tuple[click.Command, click.Context]:
        """Find the command in ``cryoplug``, and a context whose parents are the groups above it."""
        context = click.Context(cli, info_name="cryoplug", **cli.context_settings)
        command: click.Command = cli
        for word in self._words:
            assert isinstance(command, click.Group)
            found = command.get_command(context, word)
            assert found is not None, f"there is no command cryoplug {self.command}; is its plugin installed?"
            command, context = found, click.Context(found, info_name=word, parent=context)
        return command, context

    def _options(self) -> list[click.Option]:
        command, context = self._command()
        return [item for item in command.get_params(context) if isinstance(item, click.Option) and item.name != "help"]

    def _variable(self, flag: str) -> str:
        return "_".join(["CRYOPLUG", *self._words, flag]).replace("-", "_").upper()


class _NoInput:
    """Standard input that fails the test if anything reads it."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"the command uses standard input ({name})")


def _flag(option: click.Option) -> str:
    return max(option.opts, key=len).lstrip("-")


def _only_error(done: Finished) -> str:
    assert "Traceback" not in done.stderr, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error:") or ": error: " in line]
    assert len(errors) == 1, f"one line must say what is wrong: {done.stderr!r}"
    return errors[0]


def _records(done: Finished) -> list[dict[str, Any]]:
    assert done.code == 0, f"exit code {done.code}: {done.stderr}"
    records = []
    for line in done.stdout.splitlines():
        try:
            records.append(json.loads(line, parse_constant=_no_constant))
        except ValueError as error:
            raise AssertionError(f"with --json, stdout has a line that is not JSON ({error}): {line!r}") from error
    assert records, "with --json, there is no record on stdout"
    assert all(isinstance(record, dict) for record in records), "each line is one record: a JSON object"
    for record in records:
        assert {"type", "time"} <= record.keys(), f"a record has a type and a time: use echo_result ({record})"
        _check_against_schema(record)
    return records


def _check_against_schema(record: dict[str, Any]) -> None:
    # A plugin's tests may do without jsonschema: its own types of records are free but for type and time.
    if importlib.util.find_spec("jsonschema") is None:
        return
    from jsonschema.exceptions import best_match

    error = best_match(_validator(record["type"]).iter_errors(record))
    if error is not None:
        where = ".".join(map(str, error.absolute_path)) or "the record"
        raise AssertionError(f"{record['type']}: {where}: {error.message} (cryoplug/schemas)")


@functools.cache
def _validator(type: str) -> Any:
    # Not jsonschema.validate: each call would check the schema itself, 0.3 s, 100 times as long as the record takes.
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema_of(type))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
