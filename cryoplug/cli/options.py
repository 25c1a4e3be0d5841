"""Options that several commands share, each written once, and the command class that all of them use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class CryoplugCommand(click.Command):
    """A command that accepts ``--val_split`` for ``--val-split``, and ``CRYOPLUG_COMMAND_FLAG`` for every flag.

    The founding program spelled its flags with underscores, and RELION builds them so too.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Spell option names with hyphens, then parse; values and everything after ``--`` stay as they are."""
        for option in self.get_params(ctx):
            _name_variable(option, ctx.auto_envvar_prefix)
        known = {name for parameter in self.get_params(ctx) for name in (*parameter.opts, *parameter.secondary_opts)}
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [_hyphenated(token, known) for token in args[:end]] + args[end:])


def _name_variable(option: click.Parameter, prefix: str | None) -> None:
    # click makes the variable from the name of the Python argument: STORE_FORMAT, where the flag is --format.
    flag = max(option.opts, key=len).lstrip("-").replace("-", "_")
    if prefix and isinstance(option, click.Option) and option.envvar is None and flag != option.name:
        option.envvar = f"{prefix}_{flag.upper()}"


def _hyphenated(token: str, known: set[str]) -> str:
    name, equals, value = token.partition("=")
    spelled = name.replace("_", "-")
    return spelled + equals + value if name.startswith("--") and name not in known and spelled in known else token


def json_option(command: F) -> F:
    """Add ``--json``, passed on as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Write stdout as JSON lines, one record each.")(command)


def overwrite_option(command: F) -> F:
    """Add ``--overwrite``."""
    return click.option("--overwrite", is_flag=True, help="Redo and replace what an earlier run left.")(command)
