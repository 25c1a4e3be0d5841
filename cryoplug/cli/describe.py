"""The command ``cryoplug describe``: the options of a command as JSON, for programs that make forms from them."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from cryoplug.cli.described import described
from cryoplug.cli.options import CryoplugCommand, json_option
from cryoplug.cli.output import echo_result


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

    for one in [words] if words else [(name,) for name in COMMANDS]:
        for description in described(*one):
            record = asdict(description)
            echo_result(record, as_json=as_json, type="command", text=json.dumps(record, indent=2))
