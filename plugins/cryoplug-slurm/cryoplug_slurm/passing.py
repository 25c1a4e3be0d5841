"""Commands that pass most of their options to another command of cryoplug, and use its help and checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from cryoplug.cli.main import CONFIG, cli
from cryoplug.cli.options import CryoplugCommand


class PassingCommand(CryoplugCommand):
    """A command with its own options; all others go to the command of cryoplug with the same name.

    Parameters
    ----------
    without
        Flags of that command that are not allowed here; the help leaves them out.
    """

    def __init__(self, *words: Any, without: Sequence[str] = (), **named: Any) -> None:
        settings = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}
        super().__init__(*words, **{"context_settings": settings, **named})
        self.without = tuple(without)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the arguments of the other command beside the options of both."""
        command, context = _other(str(self.name))
        pieces = [piece for item in command.get_params(context) for piece in item.get_usage_pieces(context)]
        formatter.write_usage(ctx.command_path, " ".join(["[OPTIONS]", *pieces]))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the own options, then those of the other command."""
        super().format_options(ctx, formatter)
        command, context = _other(str(self.name))
        own = {name for item in self.get_params(ctx) for name in (*item.opts, *item.secondary_opts)}
        others = [item for item in command.get_params(context) if isinstance(item, click.Option)]
        shown = [item for item in others if not {*item.opts} & {*own, *self.without}]
        with formatter.section(f"Options of cryoplug {self.name}, which are passed on"):
            formatter.write_dl([record for item in shown if (record := item.get_help_record(context)) is not None])


def understood(name: str, words: Sequence[str], here: click.Context) -> dict[str, Any]:
    """Let a command parse its options, with environment variables and configuration file; give the values.

    Raises
    ------
    click.UsageError
        The options are wrong; the message is that of the command.
    """
    command, _ = _other(name)
    root = here.find_root()
    parent = root if root.command is cli else click.Context(cli, info_name="cryoplug", **cli.context_settings)
    with command.make_context(name, list(words), parent=parent) as context:
        return context.params


def configuration(here: click.Context) -> list[str]:
    """Give the words that make a job use the same ``cryoplug --config`` file; none if there is no file."""
    path: Path | None = here.find_root().meta.get(CONFIG)
    return [] if path is None else ["--config", str(path.absolute())]


def _other(name: str) -> tuple[click.Command, click.Context]:
    parent = click.Context(cli, info_name="cryoplug", **cli.context_settings)
    command = cli.get_command(parent, name)
    assert command is not None
    return command, click.Context(command, info_name=name, parent=parent)
