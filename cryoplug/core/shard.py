"""Which part of a list a process works on, where several share the list without a word to one another."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from cryoplug.errors import UsageError


@dataclass(frozen=True)
class Shard:
    """One part of a list in several; together they are the list, and no two have an entry in common."""

    index: int
    """Which, from 0."""
    count: int
    """Of how many."""

    def __post_init__(self) -> None:
        """Refuse a part that is none."""
        if self.count < 1 or not 0 <= self.index < self.count:
            raise UsageError(f"--shard {self} (allowed: I/N with I from 0 to N - 1, as in 0/4 to 3/4)")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @staticmethod
    def parse(text: str) -> Shard:
        """Read ``I/N``.

        Raises
        ------
        UsageError
            It is nothing of that kind.
        """
        index, slash, count = text.strip().partition("/")
        if not (slash and index.isascii() and index.isdigit() and count.isascii() and count.isdigit()):
            raise UsageError(f"--shard {text} (allowed: I/N with I from 0 to N - 1, as in 0/4 to 3/4)")
        return Shard(int(index), int(count))

    def has(self, name: str) -> bool:
        """Tell whether an entry belongs to this part: by its name alone, so that a list that grows moves none.

        Parameters
        ----------
        name
            What the entry is known by, the same in every process.
        """
        digest = hashlib.blake2b(os.fsencode(name), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index
