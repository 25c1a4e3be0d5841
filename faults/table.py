"""A row of the fault matrix, the list of all rows, and how rows are printed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faults.trial import Trial

_SHOWN_CHARACTERS = 150


@dataclass(frozen=True)
class Fault:
    """One row before it is tried."""

    name: str
    """Name of the function that tries it, for ``--only``."""
    group: str
    """Module that it stands in."""
    title: str
    """What goes wrong: the first line of the function's docstring."""
    attempt: Callable[[Trial], None]
    """Brings the fault about and checks what is left."""


@dataclass(frozen=True)
class Outcome:
    """One row after it was tried."""

    fault: Fault
    """Which."""
    command: str
    """The command that met the fault."""
    seen: str
    """What it said on stderr about the fault."""
    exit_code: int | None
    """Its exit code; None when it never ended by itself."""
    kept: tuple[str, ...]
    """What was looked at and found in order."""
    problems: tuple[str, ...]
    """What was lost or wrong; empty is good."""
    seconds: float
    """Time that the row took."""

    @property
    def verdict(self) -> str:
        """``ok`` or ``FAIL``."""
        return "FAIL" if self.problems else "ok"

    @property
    def lost(self) -> str:
        """What was lost."""
        if self.problems:
            return "LOST OR WRONG: " + "; ".join(self.problems)
        return "nothing: " + "; ".join(self.kept)


FAULTS: list[Fault] = []
"""All rows, in the order in which they are tried."""


def fault(attempt: Callable[[Trial], None]) -> Callable[[Trial], None]:
    """Make a function a row; the first line of its docstring is the fault."""
    title = (attempt.__doc__ or "").strip().splitlines()[0].rstrip(".")
    FAULTS.append(Fault(attempt.__name__, attempt.__module__.removeprefix("faults."), title, attempt))
    return attempt


def progress_line(number: int, outcome: Outcome) -> str:
    """Give the line that is printed when a row has been tried."""
    return (
        f"{outcome.verdict:4} {number:3} {outcome.fault.title} | {_short(outcome.command, 70)} | exit {outcome.exit_code}"
        f" | {_short(outcome.seen)} | {outcome.lost} [{outcome.seconds:.1f} s]"
    )


def markdown(outcomes: Iterable[Outcome]) -> str:
    """Give the whole table, one section a group."""
    parts: list[str] = []
    group = ""
    for number, outcome in enumerate(outcomes, start=1):
        if outcome.fault.group != group:
            group = outcome.fault.group
            parts += ["", f"## {group}", "", "| # | fault | command | the user sees | exit | lost | |"]
            parts.append("|---|---|---|---|---|---|---|")
        cells = (
            str(number),
            _cell(outcome.fault.title),
            f"`{_short(outcome.command, 110).replace('`', '')}`".replace("|", "\\|"),
            _cell(_short(outcome.seen)),
            str(outcome.exit_code),
            _cell(outcome.lost),
            outcome.verdict,
        )
        parts.append("| " + " | ".join(cells) + " |")
    return "\n".join(parts) + "\n"


def _short(text: str, length: int = _SHOWN_CHARACTERS) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    if len(text) <= length:
        return text
    half = (length - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
