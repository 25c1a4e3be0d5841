"""A row of the fault matrix, the list of all rows, and how rows are printed."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faults.trial import Trial

GROUPS = (
    "signals",
    "disk",
    "every_call",
    "sharing",
    "watching",
    "names",
    "lists",
    "headers",
    "movies",
    "pixels",
    "checkpoints",
    "stores",
    "devices",
    "surroundings",
    "outputs",
)
"""Modules with rows, in the order of the table."""
_SHOWN_CHARACTERS = 150
_HEAD = """# What happens when things go wrong

Written by `make faults FAULTS_ARGS="--page docs/faults.md"`. Each row brings a real fault about and meets it with a
real process of the command, in most rows a fork whose imports are done (`--cold` starts each as a user does). What was lost
is computed: results are compared, to the bit, with those of an undisturbed run, inputs by their hash before and after, and
everything under a final name must be complete. `in` is the folder of inputs, `out` that of results.
"""


@dataclass(frozen=True)
class Fault:
    """One row before it is tried."""

    name: str
    """Name of the function that tries it."""
    group: str
    """Module that it stands in."""
    title: str
    """What goes wrong: the first line of the function's docstring."""
    attempt: Callable[[Trial], None]
    """Brings the fault about and checks what is left."""


@dataclass(frozen=True)
class Outcome:
    """One row after it was tried."""

    name: str
    """Which: `Fault.name`."""
    group: str
    """`Fault.group`."""
    title: str
    """`Fault.title`."""
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


_FAULTS: list[Fault] = []


def faults() -> list[Fault]:
    """Give all rows, in the order of the table."""
    for group in GROUPS:
        importlib.import_module(f"faults.{group}")
    return sorted(_FAULTS, key=lambda row: GROUPS.index(row.group))


def fault(attempt: Callable[[Trial], None]) -> Callable[[Trial], None]:
    """Make a function a row; the first line of its docstring is the fault."""
    title = (attempt.__doc__ or "").strip().splitlines()[0].rstrip(".")
    _FAULTS.append(Fault(attempt.__name__, attempt.__module__.removeprefix("faults."), title, attempt))
    return attempt


def summary(outcome: Outcome) -> str:
    """Give one line about a row that was tried."""
    return (
        f"{outcome.title} | {_short(outcome.command, 70)} | exit {outcome.exit_code} | {_short(outcome.seen)}"
        f" | {outcome.lost} [{outcome.seconds:.1f} s]"
    )


def page(outcomes: Iterable[Outcome], before: str = "") -> str:
    """Give the page with one section a group, in the order of the matrix.

    Parameters
    ----------
    outcomes
        Rows that were tried.
    before
        The page as it was: what it says of rows that were not tried now stays.
    """
    lines = dict(map(_cells_of, _ROW.findall(before)))
    lines |= {_cell(outcome.title): _cells(outcome) for outcome in outcomes}
    rows = [(row.group, _cell(row.title)) for row in faults() if _cell(row.title) in lines]
    failed = sum(lines[title].endswith("| FAIL |") for _, title in rows)
    parts = [_HEAD, f"{len(rows)} faults tried, {failed} of them with a loss."]
    for number, (group, title) in enumerate(rows, start=1):
        if number == 1 or group != rows[number - 2][0]:
            parts += ["", f"## {group}", "", "| # | fault | command | the user sees | exit | lost | |"]
            parts.append("|---|---|---|---|---|---|---|")
        parts.append(f"| {number} | {title} | {lines[title]}")
    return "\n".join(parts) + "\n"


_ROW = re.compile(r"^\| \d+ \| (.*)$", re.MULTILINE)


def _cells_of(row: str) -> tuple[str, str]:
    """Give the title of a row of the page, and the cells behind it."""
    title, _, cells = row.partition(" | ")
    return title, cells


def _cells(outcome: Outcome) -> str:
    """Give the cells behind the title."""
    cells = (
        f"`{_short(outcome.command, 110).replace('`', '')}`".replace("|", "\\|"),
        _cell(_short(outcome.seen)),
        str(outcome.exit_code),
        _cell(outcome.lost),
        outcome.verdict,
    )
    return " | ".join(cells) + " |"


def _short(text: str, length: int = _SHOWN_CHARACTERS) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    if len(text) <= length:
        return text
    half = (length - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
