"""Which part of a list a process works on, if several share the list without talking to one another."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from cryoplug.errors import UsageError


@dataclass(frozen=True)
class Shard:
    """One of several parts of a list. Together the parts are the whole list, and no two have an entry in common."""

    index: int
    """Number of this part, from 0 to `count` - 1."""
    count: int
    """Number of parts."""

    def __post_init__(self) -> None:
        """Refuse a part that does not exist."""
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
            The text is not of this form.
        """
        index, slash, count = text.strip().partition("/")
        if not (slash and index.isascii() and index.isdigit() and count.isascii() and count.isdigit()):
            raise UsageError(f"--shard {text} (allowed: I/N with I from 0 to N - 1, as in 0/4 to 3/4)")
        return Shard(int(index), int(count))

    def has(self, name: str) -> bool:
        """Say whether an entry belongs to this part. Its name alone decides, so a growing list moves no entry.

        Parameters
        ----------
        name
            Name of the entry, the same in every process.
        """
        digest = hashlib.blake2b(os.fsencode(name), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index
