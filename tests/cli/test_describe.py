"""``cryoplug describe`` says of every option what the command itself declares."""

from __future__ import annotations

import json

import click
import pytest

from cryoplug.cli.description import CommandDescription, OptionDescription, describe
from cryoplug.cli.main import COMMANDS, cli, run
from cryoplug.cli.options import CryoplugCommand


@click.command("paint")
@click.argument("walls", nargs=-1, required=True)
@click.option("--colour", type=click.Choice(["red", "blue"]), default="red", help="Which.")
@click.option("--layers", "-n", type=click.IntRange(min=1, max=9), default=2, help="How many.")
@click.option("--shine/--no-shine", default=True, help="Whether.")
@click.option("--range", "span", nargs=2, type=float, metavar="LOW HIGH", help="Between.")
@click.option("--voltage", type=float, metavar="KV", required=True, help="Of the gun.")
@click.option("--mask", multiple=True, metavar="PATH", help="Leave out.")
@click.option("--secret", hidden=True)
def paint(**_all: object) -> None:
    """Paint walls.

    Two layers will do.
    """


def option(name: str) -> OptionDescription:
    return next(item for item in describe(paint).options if item.name == name)


def test_what_the_declaration_says_is_what_is_told() -> None:
    found = describe(paint)
    assert (found.command, found.purpose) == ("paint", "Paint walls.")
    assert "Two layers" in found.help
    assert [(item.name, item.required, item.repeated) for item in found.arguments] == [("walls", True, True)]
    assert [item.name for item in found.options] == ["colour", "layers", "shine", "range", "voltage", "mask"]
    assert (option("colour").kind, option("colour").choices, option("colour").default) == (
        "choice",
        ("red", "blue"),
        "red",
    )
    assert (option("layers").kind, option("layers").minimum, option("layers").maximum) == ("integer", 1, 9)
    assert option("layers").flags == ("--layers", "-n")
    assert (option("shine").kind, option("shine").off_flags, option("shine").values) == ("flag", ("--no-shine",), 0)
    assert (option("range").kind, option("range").values, option("range").default) == ("number", 2, None)
    assert (option("voltage").unit, option("voltage").required, option("voltage").default) == ("kV", True, None)
    assert (option("mask").kind, option("mask").repeated, option("mask").default) == ("path", True, None)
    assert describe(paint, "house", "paint").options[0].environment == "CRYOPLUG_HOUSE_PAINT_COLOUR"


@pytest.fixture(scope="module")
def described() -> dict[str, CommandDescription]:
    context = click.Context(cli, info_name="cryoplug", **cli.context_settings)
    commands = {name: cli.get_command(context, name) for name in COMMANDS}
    return {
        name: describe(command, name)
        for name, command in commands.items()
        if command and not hasattr(command, "commands")
    }


def test_a_default_that_is_told_is_one_that_the_command_takes(described: dict[str, CommandDescription]) -> None:
    kinds = {"flag": bool, "integer": int, "number": int | float, "text": str, "choice": str}
    for command in described.values():
        for item in command.options:
            assert item.help, f"{command.command} --{item.name}"
            if item.default is not None and item.values < 2 and not item.repeated:
                assert isinstance(item.default, kinds.get(item.kind, object)), f"{command.command} --{item.name}"
            if item.choices and item.default is not None:
                assert item.default in item.choices


def test_the_command_gives_one_record_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["describe", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["command"].split()[0] for line in lines] == list(COMMANDS)
    assert run(["describe", "plugins", "list"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["options"][0]["environment"] == "CRYOPLUG_PLUGINS_LIST_JSON"


@pytest.mark.parametrize(("words", "said"), [(["nothing"], "denoise"), (["denoise", "deeper"], "cryoplug denoise")])
def test_a_command_that_is_not_there_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["describe", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_command_that_was_described_still_shows_its_help_by_both_flags(capsys: pytest.CaptureFixture[str]) -> None:
    """click keeps the first help option that anybody asks for, also one for a context without the program's settings."""

    @click.command("paint", cls=CryoplugCommand)
    def paint_again() -> None:
        """Paint walls again."""

    describe(paint_again)
    paint_again.get_params(click.Context(paint_again))
    for flag in ("-h", "--help"):
        with pytest.raises(SystemExit) as ended:
            paint_again.main([flag], prog_name="cryoplug paint")
        assert ended.value.code == 0
        assert "-h, --help" in capsys.readouterr().out
