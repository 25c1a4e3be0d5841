"""The command ``cryoplug describe``: the options of a command as JSON, for programs that make forms from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

import click

from cryoplug.cli.description import CommandDescription
from cryoplug.cli.description import describe as read
from cryoplug.cli.options import CryoplugCommand, json_option
from cryoplug.cli.output import echo_result
from cryoplug.errors import UsageError


@click.command(cls=CryoplugCommand)
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@json_option
def describe(words: tuple[str, ...], as_json: bool) -> None:
    """Write the options of a command as JSON, for other programs.

    A program that shows a form for cryoplug reads here what each option is called, what it takes, what holds when it is
    left out, and what it does. Without COMMAND, cryoplug describes all of its own commands. With --json, each command is
    one line.

    Example: cryoplug describe denoise --json
    """
    from cryoplug.cli.main import COMMANDS

    for one in [words] if words else [(name,) for name in sorted(COMMANDS)]:
        for description in described(*one):
            record = asdict(description)
            echo_result(record, as_json=as_json, type="command", text=json.dumps(record, indent=2))


def described(*words: str) -> Iterator[CommandDescription]:
    """Describe a command, or, for a group, every command below it.

    Parameters
    ----------
    words
        What follows ``cryoplug``.

    Raises
    ------
    UsageError
        There is no such command.
    """
    from cryoplug.cli.main import cli

    context = click.Context(cli, info_name="cryoplug", **cli.context_settings)
    for called, command in _leaves(_named(cli, words, context), words, context):
        yield read(command, *called)


def _named(command: click.Command, words: tuple[str, ...], context: click.Context) -> click.Command:
    for depth, word in enumerate(words):
        found = command.get_command(context, word) if isinstance(command, click.Group) else None
        if found is None:
            known = ", ".join(command.list_commands(context)) if isinstance(command, click.Group) else "nothing"
            above = " ".join(("cryoplug", *words[:depth]))
            raise UsageError(f"{above} has no command {word!r}; allowed: {known}")
        command = found
    return command


def _leaves(
    command: click.Command, words: tuple[str, ...], context: click.Context
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Give the command itself, or, for a group, every command below it."""
    if not isinstance(command, click.Group):
        yield words, command
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        yield from _leaves(child, (*words, name), context)
