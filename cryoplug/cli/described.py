"""Find the commands that the words after ``cryoplug`` name, and describe each: one command, or all of a group."""

from __future__ import annotations

from collections.abc import Iterator

import click

from cryoplug.cli.description import CommandDescription, describe
from cryoplug.errors import UsageError


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
        yield describe(command, *called)


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
