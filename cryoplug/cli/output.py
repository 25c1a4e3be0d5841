"""Results go to stdout, talk goes to stderr; nothing else prints.

Every line of ``--json`` is a record with a ``type`` and a ``time``; `cryoplug.schemas` says what is in it. Talk that goes
into a file has the time before each line. ``--quiet`` leaves results and errors.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import click

from cryoplug.core.printable import printable, printable_name
from cryoplug.core.results import FileResult, plain, to_json
from cryoplug.errors import ReaderGone

__all__ = ["echo_result", "is_quiet", "printable", "printable_name", "quietly", "say", "say_next", "talking_above"]

# Not of a context of click's: pipelines talk from threads of their own.
_quiet = False
_above_the_bar: Callable[[str], None] | None = None
"""Prints a line of talk above the bar of a terminal, while there is one."""


def echo_result(record: Any, *, as_json: bool, text: str | None = None, type: str | None = None) -> None:
    """Print one result on stdout.

    Parameters
    ----------
    record
        What ``--json`` shows, on one line.
    as_json
        Whether stdout is JSON lines.
    text
        What a person sees instead; nothing is printed for None.
    type
        What kind of record it is; None: ``file`` for a `FileResult`, else ``result``.
    """
    if as_json:
        known = type or ("file" if isinstance(record, FileResult) else "result")
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        _print(to_json({"type": known, "time": now, **plain(record)}))
    elif text is not None:
        _print(printable(text))


def say(text: str, *, urgent: bool = False) -> None:
    """Print a line of talk or progress on stderr; click flushes it, so a log file can be followed.

    Parameters
    ----------
    text
        One line.
    urgent
        Say it with ``--quiet``, too: something failed.
    """
    if not _quiet or urgent:
        clock = "" if sys.stderr.isatty() else f"{datetime.now():%Y-%m-%d %H:%M:%S} "
        _print(clock + printable(text), err=True)


def say_next(command: str, *words: object) -> None:
    """End a summary with the command that usually comes next, quoted so that a shell takes it as it is.

    Parameters
    ----------
    command
        The one that says it.
    words
        What follows ``cryoplug``; paths as the user gave them.
    """
    say(f"{command}: next: {shlex.join(['cryoplug', *map(str, words)])}")


@contextlib.contextmanager
def quietly(quiet: bool) -> Iterator[None]:
    """Say only what is urgent, while it lasts."""
    global _quiet
    before, _quiet = _quiet, quiet or _quiet
    try:
        yield
    finally:
        _quiet = before


@contextlib.contextmanager
def talking_above(bar: Callable[[str], None]) -> Iterator[None]:
    """Hand every line of talk to the bar of a terminal, while it lasts: written past it, a line would tear the bar apart."""
    global _above_the_bar
    before, _above_the_bar = _above_the_bar, bar
    try:
        yield
    finally:
        _above_the_bar = before


def is_quiet() -> bool:
    """Tell whether only what is urgent is said."""
    return _quiet


def _print(line: str, *, err: bool = False) -> None:
    if err and _above_the_bar is not None:
        _above_the_bar(line)
        return
    try:
        click.echo(line, err=err)
    except BrokenPipeError:
        raise ReaderGone from None
