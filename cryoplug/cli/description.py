"""A command's declaration as plain data, from which other programs make forms."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import click

from cryoplug.cli.options import Size

_UNITS = {"A": "A", "KV": "kV", "MM": "mm", "S": "s"}
"""The word that the help shows for a value, and the unit that it means."""


@dataclass(frozen=True)
class OptionDescription:
    """One option of a command."""

    name: str
    """The flag without hyphens in front: ``pixel-size``."""
    flags: tuple[str, ...]
    """Every spelling that switches it on or gives it a value."""
    off_flags: tuple[str, ...]
    """The spellings that switch it off: ``--no-previews``."""
    kind: str
    """``flag``, ``integer``, ``number``, ``choice``, ``path``, ``size`` (as in 2GB) or ``text``."""
    values: int
    """How many values follow the flag: 0 for a switch, 2 for ``LOW HIGH``."""
    choices: tuple[str, ...]
    """What a choice may be; empty for the others."""
    minimum: float | None
    """The least number allowed; None without a limit."""
    maximum: float | None
    """The greatest number allowed; None without a limit."""
    unit: str | None
    """``A`` (angstrom), ``kV``, ``mm``, ``s``; None for a number without a unit."""
    shown_as: str
    """The word that the help shows for the value."""
    default: Any
    """Value when the option is left out; None if the command decides, as its help says."""
    required: bool
    """Whether the command needs it."""
    repeated: bool
    """Whether it may be given several times."""
    environment: str
    """The environment variable that sets it."""
    help: str
    """What the option does, in a sentence or two."""


@dataclass(frozen=True)
class ArgumentDescription:
    """A value that is given without a flag, such as INPUT."""

    name: str
    required: bool
    repeated: bool


@dataclass(frozen=True)
class CommandDescription:
    """A command: purpose, arguments and options, in the order of its help."""

    command: str
    """The words after ``cryoplug``."""
    purpose: str
    """The first line of its help."""
    help: str
    """The whole help text, without the options."""
    arguments: tuple[ArgumentDescription, ...]
    options: tuple[OptionDescription, ...]


def describe(command: click.Command, *words: str) -> CommandDescription:
    """Read a command's declaration.

    Parameters
    ----------
    command
        The command; only its declaration is read, nothing runs.
    words
        How it is called after ``cryoplug``; the command's own name when they are left out.
    """
    called = words or (str(command.name),)
    text = inspect.cleandoc(command.help or "").replace("\b\n", "").replace("\f", "")
    context = click.Context(command, info_name=called[-1])
    shown = [item for item in command.params if not getattr(item, "hidden", False)]
    return CommandDescription(
        command=" ".join(called),
        purpose=text.partition("\n")[0],
        help=text,
        arguments=tuple(
            ArgumentDescription(str(item.name), item.required, item.nargs == -1)
            for item in shown
            if isinstance(item, click.Argument)
        ),
        options=tuple(_option(item, called, context) for item in shown if isinstance(item, click.Option)),
    )


def _option(item: click.Option, called: tuple[str, ...], context: click.Context) -> OptionDescription:
    name = max(item.opts, key=len).lstrip("-")
    shown_as = "" if item.is_flag else item.make_metavar(context)
    ranged = item.type if isinstance(item.type, click.IntRange | click.FloatRange) else None
    return OptionDescription(
        name=name,
        flags=tuple(item.opts),
        off_flags=tuple(item.secondary_opts),
        kind=_kind(item),
        values=0 if item.is_flag else item.nargs,
        choices=tuple(map(str, item.type.choices)) if isinstance(item.type, click.Choice) else (),
        minimum=ranged.min if ranged else None,
        maximum=ranged.max if ranged else None,
        unit=_UNITS.get(shown_as),
        shown_as=shown_as,
        default=_default(item),
        required=item.required,
        repeated=item.multiple,
        environment="_".join(["CRYOPLUG", *called, name]).replace("-", "_").upper(),
        help=item.help or "",
    )


def _kind(item: click.Option) -> str:
    if item.is_flag:
        return "flag"
    if isinstance(item.type, click.Choice):
        return "choice"
    if isinstance(item.type, click.Path) or item.metavar in ("PATH", "FILE"):
        return "path"
    if isinstance(item.type, Size):
        return "size"
    if isinstance(item.type, click.types.IntParamType):
        return "integer"
    if isinstance(item.type, click.types.FloatParamType):
        return "number"
    return "text"


def _default(item: click.Option) -> Any:
    value = item.to_info_dict()["default"]  # None where click itself holds a mark of its own for "not given"
    if value in ((), []):
        return None
    return value if isinstance(value, bool | int | float | str | tuple | list | None) else str(value)
