"""Results go to stdout, talk goes to stderr; nothing else prints."""

from __future__ import annotations

from typing import Any

import click

from cryoplug.core.results import to_json


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
        click.echo(to_json(record))
    elif text is not None:
        click.echo(printable(text))


def say(text: str) -> None:
    """Print a line of talk or progress on stderr; click flushes it, so a log file can be followed."""
    click.echo(printable(text), err=True)


def printable(text: str) -> str:
    r"""Escape control characters, so that a file name cannot forge lines: ``a\nERROR`` stays on its line.

    Newlines that cryoplug itself writes are kept: pass file names through `printable_name` first.
    """
    return "".join(char if char in "\n\t" or char.isprintable() else _escaped(char) for char in text)


def printable_name(name: object) -> str:
    """Escape every control character of a file name, newlines included."""
    return "".join(char if char.isprintable() else _escaped(char) for char in str(name))


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
