"""What is still to come, as far as a workflow knows it: how many files there are, and what it waits for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outlook:
    """How many files a run has, and what it waits for."""

    total: int
    """Files that are known by now, finished and failed ones included; a run that watches learns of more."""
    waiting: tuple[str, ...] = ()
    """What it waits for, a sentence each; nothing while there is work."""


Expect = Callable[[Outlook], None]
"""Told as soon as the number of files is known, and again whenever the outlook changes; from any thread."""


def unwatched(_outlook: Outlook) -> None:
    """Nobody wants to know."""
