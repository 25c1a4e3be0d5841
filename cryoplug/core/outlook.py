"""How many files a run has, and what it waits for, as far as that is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outlook:
    """How many files a run has, and what it waits for."""

    total: int
    """Files known so far, including finished and failed ones; with ``--watch`` more may come."""
    waiting: tuple[str, ...] = ()
    """What the run waits for, a sentence each; empty while there is work."""


Expect = Callable[[Outlook], None]
"""Called as soon as the number of files is known, and again when the outlook changes; from any thread."""


def unwatched(_outlook: Outlook) -> None:
    """Do nothing: nobody shows the outlook."""
