"""``cryoplug config``: an example of a file for ``cryoplug --config``, written from the commands' own declarations."""

from __future__ import annotations

from pathlib import Path

import click

from cryoplug.cli.options import CryoplugCommand, json_option, output_option, overwrite_option
from cryoplug.cli.output import echo_result, printable_name
from cryoplug.errors import UsageError

_ABOUT_CRYOPLUG = ("cite", "config", "describe", "plugins")
"""Commands about cryoplug itself: a table is written only if the user names the command."""


@click.command(cls=CryoplugCommand)
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@output_option("File to write.  [default: stdout]", required=False)
@overwrite_option
@json_option
def config(words: tuple[str, ...], output: Path | None, overwrite: bool, as_json: bool) -> None:
    """Write an example of a file for cryoplug --config.

    The file has a table for each COMMAND, or for all of them, and in it a line for each option, with what it does and its
    default. Each line is a comment: remove the # before those that you want to set, and give the file to every command.
    A flag beats an environment variable, and both beat the file.

    Example: cryoplug config denoise convert -o cryoplug.toml
    """
    from cryoplug.cli.described import described
    from cryoplug.cli.example_config import example_config
    from cryoplug.cli.main import COMMANDS

    named = words or tuple(name for name in COMMANDS if name not in _ABOUT_CRYOPLUG)
    text = example_config(one for name in named for one in described(*name.split(".")))
    if output is None:
        echo_result({"text": text}, as_json=as_json, type="config", text=text.rstrip())
        return
    if output.exists() and not overwrite:
        raise UsageError(f"{output}: is there already; give another name, or --overwrite to replace it")
    from cryoplug.disk.atomic import write_text

    write_text(output, text)
    echo_result(
        {"path": output},
        as_json=as_json,
        type="config",
        text=f"{printable_name(output)}: use it with cryoplug --config",
    )
