"""Results go to stdout, talk goes to stderr; nothing else prints."""

from __future__ import annotations

from typing import Any

import click

from cryoplug.core.printable import printable, printable_name
from cryoplug.core.results import to_json
from cryoplug.errors import ReaderGone

__all__ = ["echo_result", "printable", "printable_name", "say"]


def echo_result(record: Any, *, as_json: bool, text: str | None = None) -> None:
    """Print one result on stdout.

    Parameters
    ----------
    record
        What ``--json`` shows, on one line.
    as_json
        Whether stdout is JSON lines.
    text
        What a person sees instead; nothing is printed for None.
    """
    if as_json:
        _print(to_json(record))
    elif text is not None:
        _print(printable(text))


def say(text: str) -> None:
    """Print a line of talk or progress on stderr; click flushes it, so a log file can be followed."""
    _print(printable(text), err=True)


def _print(line: str, *, err: bool = False) -> None:
    try:
        click.echo(line, err=err)
    except BrokenPipeError:
        raise ReaderGone from None
