"""One writer at a time: a claim beside the output, also between machines that share a network disk."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from cryoplug.disk.claims import Claims


class OutputLock:
    """Holds an output for this process until `release`.

    If the holder died, that is noticed at once on the same machine, and from another machine after a minute.

    Parameters
    ----------
    path
        The file of the claim; its folder must exist.

    Raises
    ------
    OutputBusyError
        Another live process holds it; the message names it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with ExitStack() as stack:
            stack.enter_context(Claims()).take_or_fail(path, str(path.parent))
            self._stack = stack.pop_all()

    def release(self) -> None:
        """Remove the claim and let others in. A second call does nothing."""
        self._stack.close()
