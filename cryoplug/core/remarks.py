"""Remarks on a file: all of them in one message for the record, the first two for a line of output."""

from __future__ import annotations

from collections.abc import Iterable

_BETWEEN = " | "
_MOST_ON_A_LINE = 2


def joined(remarks: Iterable[str]) -> str:
    """Join several remarks into one message; empty ones are left out."""
    return _BETWEEN.join(filter(None, remarks))


def separate(message: str) -> list[str]:
    """Give the remarks of a message that `joined` made."""
    return message.split(_BETWEEN) if message else []


def on_one_line(message: str) -> str:
    """Give the first two remarks of a message, and the number of further ones, which are in the record."""
    remarks = separate(message)
    more = len(remarks) - _MOST_ON_A_LINE
    shown = joined(remarks[:_MOST_ON_A_LINE])
    return f"{shown} (and {more} more: see --json)" if more > 0 else shown
