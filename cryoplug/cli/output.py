"""Results go to stdout, talk goes to stderr; nothing else prints.

Every line of ``--json`` is a record with a ``type`` and a ``time``; `cryoplug.schemas` describes its fields. In a log file,
the time stands before each line. With ``--quiet``, only results and errors are printed.
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
"""Prints a line above the progress bar of a terminal; None while there is no bar."""


def echo_result(record: Any, *, as_json: bool, text: str | None = None, type: str | None = None) -> None:
    """Print one result on stdout.

    Parameters
    ----------
    record
        The record that ``--json`` writes, on one line.
    as_json
        Whether stdout is JSON lines.
    text
        The text for people, without ``--json``; None prints nothing.
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
        Print it also with ``--quiet``, because something failed.
    """
    if not _quiet or urgent:
        clock = "" if sys.stderr.isatty() else f"{datetime.now():%Y-%m-%d %H:%M:%S} "
        _print(clock + printable(text), err=True)


def say_next(command: str, *words: object) -> None:
    """End a summary with the command that usually comes next, quoted so that a shell takes it as it is.

    Parameters
    ----------
    command
        The command that ends.
    words
        What follows ``cryoplug``; paths as the user gave them.
    """
    say(f"{command}: next: {shlex.join(['cryoplug', *map(str, words)])}")


@contextlib.contextmanager
def quietly(quiet: bool) -> Iterator[None]:
    """Within this context, print only what is urgent."""
    global _quiet
    before, _quiet = _quiet, quiet or _quiet
    try:
        yield
    finally:
        _quiet = before


@contextlib.contextmanager
def talking_above(bar: Callable[[str], None]) -> Iterator[None]:
    """Within this context, let the progress bar print every line above itself; any other way would garble the bar."""
    global _above_the_bar
    before, _above_the_bar = _above_the_bar, bar
    try:
        yield
    finally:
        _above_the_bar = before


def is_quiet() -> bool:
    """Say whether only urgent lines are printed."""
    return _quiet


def _print(line: str, *, err: bool = False) -> None:
    if err and _above_the_bar is not None:
        _above_the_bar(line)
        return
    try:
        click.echo(line, err=err)
    except BrokenPipeError:
        raise ReaderGone from None
