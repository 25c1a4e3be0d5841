"""An example of a configuration file: every option of some commands as a comment, with what it does and its default."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from cryoplug.cli.description import CommandDescription, OptionDescription

_WIDTH = 96
_HEAD = """\
# Defaults for cryoplug: cryoplug --config THIS_FILE denoise ...
# A flag beats an environment variable (CRYOPLUG_DENOISE_TILE), and both beat this file.
# Remove the # before an option to set it."""


def example_config(commands: Iterable[CommandDescription]) -> str:
    """Write the file: a table for each command. As it is, it sets nothing."""
    tables = ["\n".join(["", f"[{'.'.join(one.command.split())}]", *_lines(one)]) for one in commands]
    return "\n".join([_HEAD, *tables]) + "\n"


def _lines(command: CommandDescription) -> Iterator[str]:
    for option in command.options:
        yield ""
        yield from textwrap.wrap(" ".join(option.help.split()), _WIDTH, initial_indent="# ", subsequent_indent="# ")
        if option.choices:
            yield f"# One of: {', '.join(option.choices)}."
        value = _value(option)
        yield f"#{option.name} = {value}" if value else f"#{option.name} =   # {_wanted(option)}; not set"


def _value(option: OptionDescription) -> str:
    if option.kind == "flag":
        return json.dumps(bool(option.default))
    return "" if option.default is None else _toml(option.default)


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    # Numbers, switches and strings are written in TOML as in JSON.
    return json.dumps(value, ensure_ascii=False)


def _wanted(option: OptionDescription) -> str:
    kind = {"choice": "one of them", "integer": "a whole number", "number": "a number"}.get(
        option.kind, f"{option.kind}, in quotes"
    )
    return f"a list of: {kind}" if option.repeated else kind
