"""Describe the options of cryoplug, as the program itself gives them by ``cryoplug describe COMMAND``.

Scipion makes a form of every protocol of a project when it opens the project, also on a machine without cryoplug. There
the description comes from described/COMMAND.json, as the program wrote it; a test keeps it equal. Nothing runs with it: a
protocol without the program does not pass Scipion's validation.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryoplug_scipion.program import CryoplugError, Program

PACKAGED = Path(__file__).with_name("described")


@dataclass(frozen=True)
class Option:
    """One option of a command."""

    name: str
    """Name as on the command line, without the dashes."""
    flag: str
    off_flag: str
    """Flag that means No; empty if there is no such flag."""
    kind: str
    """``integer``, ``number``, ``choice``, ``flag``, ``path``, or another one, which is text."""
    choices: tuple[str, ...]
    minimum: float | None
    maximum: float | None
    unit: str
    default: Any
    repeated: bool
    help: str

    @property
    def attribute(self) -> str:
        """Name of the option in a protocol."""
        return self.name.replace("-", "_")


def options(command: str, program: Program) -> dict[str, Option]:
    """Give the options of a command by name."""
    return _options(command, program)


@functools.lru_cache(maxsize=None)
def _options(command: str, program: Program) -> dict[str, Option]:
    try:
        description = json.loads(program.answer("describe", command))
    except (CryoplugError, ValueError):
        description = json.loads((PACKAGED / f"{command}.json").read_text(encoding="utf-8"))
    return {item["name"]: _option(item) for item in description["options"]}


def _option(item: dict[str, Any]) -> Option:
    return Option(
        name=item["name"],
        flag=item["flags"][-1],
        off_flag=next(iter(item["off_flags"]), ""),
        kind=item["kind"],
        choices=tuple(item["choices"]),
        minimum=item["minimum"],
        maximum=item["maximum"],
        unit=item["unit"] or "",
        default=item["default"],
        repeated=item["repeated"],
        help=item["help"],
    )
