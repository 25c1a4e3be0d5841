"""Memory that several threads share: whoever announces more than is left waits until others have gone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Room:
    """Lets threads in while what they announce fits together.

    Parameters
    ----------
    size_bytes
        Memory for all of them; None: everybody gets in.
    """

    def __init__(self, size_bytes: int | None) -> None:
        self.size_bytes = size_bytes
        """Memory for all of them; None: no limit."""
        self._used_bytes = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, size_bytes: int) -> Iterator[None]:
        """Wait until so much is left, and take it while the block runs. Who is alone gets in with whatever size."""
        with self._changed:
            self._changed.wait_for(lambda: self._fits(size_bytes))
            self._used_bytes += size_bytes
        try:
            yield
        finally:
            with self._changed:
                self._used_bytes -= size_bytes
                self._changed.notify_all()

    def _fits(self, size_bytes: int) -> bool:
        return self.size_bytes is None or not self._used_bytes or self._used_bytes + size_bytes <= self.size_bytes
