"""Each law of a command catches one that breaks it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.core import ParameterSource

from cryoplug import extensions
from cryoplug.cli.main import LazyGroup
from cryoplug.cli.options import CryoplugCommand, json_option
from cryoplug.cli.output import echo_result
from cryoplug.errors import MissingInputError, ReaderGone, StorageError
from cryoplug.testing import CommandContract

IN_A_PROCESS_OF_ITS_OWN = "test_help_imports_nothing_heavy"
HELP = "Count the bytes of files.\n\nExample: cryoplug toy a.bin"


def count(paths: tuple[Path, ...], *, as_json: bool) -> None:
    for path in paths:
        if not path.is_file():
            raise MissingInputError(f"{path}: there is no such file; check the name")
        echo_result({"path": path, "bytes": path.stat().st_size}, as_json=as_json, text=f"{path} is there")


def toy(
    body: Callable[..., None] = count,
    *,
    option: dict[str, Any] | None = None,
    given: Callable = json_option,
    **fields: Any,
) -> click.Command:
    @click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
    @click.option("--at-most", **{"type": int, "help": "Of the files.", **(option or {})})
    @given
    def command(paths: tuple[Path, ...], at_most: int | None, as_json: bool) -> None:
        body(paths, as_json=as_json)

    return click.command("toy", **{"cls": CryoplugCommand, "help": HELP, **fields})(command)


class NeedsNothing(CryoplugCommand):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            ctx.exit(0)
        return super().parse_args(ctx, args)


def not_from(*ignored: ParameterSource) -> Callable[..., None]:
    def body(paths: tuple[Path, ...], *, as_json: bool) -> None:
        source = click.get_current_context().get_parameter_source("as_json")
        count(paths, as_json=as_json and source not in ignored)

    return body


def fails(paths: tuple[Path, ...], *, as_json: bool) -> None:
    count(paths, as_json=as_json)
    if not as_json:
        click.get_current_context().exit(1)


def asks(paths: tuple[Path, ...], *, as_json: bool) -> None:
    if not as_json and paths[0].is_file():
        sys.stdin.readline()
    count(paths, as_json=as_json)


def talks_between(paths: tuple[Path, ...], *, as_json: bool) -> None:
    if as_json and click.get_current_context().get_parameter_source("as_json") is ParameterSource.COMMANDLINE:
        click.echo("counting...")
    count(paths, as_json=as_json)


def gives_nan(paths: tuple[Path, ...], *, as_json: bool) -> None:
    click.echo('{"mean": NaN}') if as_json else count(paths, as_json=False)


def stumbles(paths: tuple[Path, ...], *, as_json: bool) -> None:
    for path in paths:
        path.stat()
        count((path,), as_json=as_json)


def goes_on(paths: tuple[Path, ...], *, as_json: bool) -> None:
    count(tuple(path for path in paths if path.is_file()), as_json=as_json)


def talks(paths: tuple[Path, ...], *, as_json: bool) -> None:
    click.echo("counting...", err=True)
    count(paths, as_json=as_json)


def complains(paths: tuple[Path, ...], *, as_json: bool) -> None:
    try:
        count(paths, as_json=as_json)
    except ReaderGone:
        raise StorageError("the output cannot be written; free some space") from None


def json_without_its_flag(command: Callable) -> Callable:
    return click.option("--json", "as_json", is_flag=True, help="JSON.", allow_from_autoenv=False, envvar="OTHER")(
        command
    )


USAGE, REQUIRED = "test_wrong_usage_exits_with_2_and_is_named", "test_what_is_required_is_asked_for"
SPELLED = "test_option_names_may_be_spelled_with_underscores"
VARIABLES, FROM_VARIABLE = "test_environment_variables_set_every_option", "test_it_takes_json_from_the_environment"
FROM_FILE = "test_it_takes_json_from_a_configuration_file"
RUN, JSON = "test_a_run_ends_with_0_and_asks_nothing", "test_json_is_one_record_a_line_on_stdout"
MISSING, PURPOSE = "test_a_missing_input_is_named", "test_help_says_purpose_and_an_example"
QUIET, UNREAD = "test_quiet_leaves_nothing_but_the_results", "test_it_ends_without_a_word_when_nobody_reads_its_results"
ENVIRONMENT, FILE = ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP
DOUBLES = {
    "no example": (toy(help="Count the bytes of files."), {PURPOSE}),
    "example of another": (toy(help="Count the bytes of files.\n\nExample: cryoplug toys a.bin"), {PURPOSE}),
    "no purpose": (toy(help="Example: cryoplug toy a.bin"), {PURPOSE}),
    "option without help": (toy(option={"help": None}), {"test_every_option_is_explained"}),
    "any flag is taken": (toy(context_settings={"ignore_unknown_options": True}), {USAGE}),
    "needs nothing": (toy(cls=NeedsNothing), {REQUIRED}),
    "plain command": (toy(cls=click.Command), {SPELLED, VARIABLES, FROM_VARIABLE, QUIET}),
    "deaf option": (toy(option={"allow_from_autoenv": False}), {VARIABLES}),
    "deaf json": (toy(given=json_without_its_flag), {VARIABLES, FROM_VARIABLE}),
    "ignores variables": (toy(not_from(ENVIRONMENT)), {FROM_VARIABLE}),
    "ignores the file": (toy(not_from(FILE)), {FROM_FILE}),
    "fails": (toy(fails), {RUN, QUIET}),
    "asks": (toy(asks), {RUN, QUIET}),
    "talks between records": (toy(talks_between), {JSON}),
    "gives NaN": (toy(gives_nan), {JSON, FROM_VARIABLE, FROM_FILE}),
    "talks": (toy(talks), {QUIET}),
    "complains": (toy(complains), {UNREAD}),
    "stumbles": (toy(stumbles), {MISSING}),
    "goes on": (toy(goes_on), {MISSING}),
}


class Contract(CommandContract):
    command = "toy"

    def arguments(self, folder: Path) -> Sequence[object]:
        (folder / "a.bin").write_bytes(b"abc")
        return (folder / "a.bin",)

    def missing_input(self, folder: Path) -> Sequence[object] | None:
        return (folder / "no_such_file.bin",)


class SaysItHasNoInput(Contract):
    def missing_input(self, folder: Path) -> None:
        return None


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[click.Command], None]:
    return lambda command: monkeypatch.setattr(LazyGroup, "get_command", lambda group, context, name: command)


def test_a_command_without_a_fault_keeps_all_laws(install, broken_laws) -> None:
    install(toy())
    assert broken_laws(Contract, skip=(IN_A_PROCESS_OF_ITS_OWN,)) == set()


@pytest.mark.parametrize("name", DOUBLES)
def test_a_command_with_a_fault_breaks_its_law_and_no_other(install, broken_laws, name: str) -> None:
    double, expected = DOUBLES[name]
    install(double)
    assert broken_laws(Contract, skip=(IN_A_PROCESS_OF_ITS_OWN,)) == expected


def test_inputs_cannot_be_left_out_of_the_contract(install, broken_laws) -> None:
    install(toy())
    assert broken_laws(SaysItHasNoInput, skip=(IN_A_PROCESS_OF_ITS_OWN,)) == {MISSING}


@pytest.mark.parametrize(("first_line", "holds"), [("", True), ("import numpy", False)])
def test_a_command_that_imports_heavy_libraries_breaks_its_law(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_line: str, holds: bool
) -> None:
    (tmp_path / "toy_command.py").write_text(f"{first_line}\nimport click\n\n@click.command()\ndef toy():\n    pass\n")
    (tmp_path / "toy-1.dist-info").mkdir()
    (tmp_path / "toy-1.dist-info" / "entry_points.txt").write_text("[cryoplug.commands]\ntoy = toy_command:toy\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).resolve().parents[2]}")
    monkeypatch.delenv(extensions.OFF_VARIABLE, raising=False)
    law = getattr(Contract(), IN_A_PROCESS_OF_ITS_OWN)
    if holds:
        law()
    else:
        with pytest.raises(AssertionError, match="--help imports numpy"):
            law()


def test_every_law_has_a_double_that_breaks_it(laws) -> None:
    broken = set.union(*(expected for _, expected in DOUBLES.values()))
    assert broken | {IN_A_PROCESS_OF_ITS_OWN} == laws(CommandContract)
