"""Look at several images at once; what was found is taken in the order of the paths."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from cryoplug.workflows.inspect.inspection import Inspection

_MOST_AT_ONCE = 4
"""Images at a time: reading and numpy leave Python's lock to others, and four keep a fast disk busy."""


class Several:
    """Steps that are begun at once where they are images, and ended one after another.

    Parameters
    ----------
    look
        Gives what is found at a path; called from several threads for images.
    take
        Called with what was found, from the thread that gave the path.
    pool
        Threads for images.
    at_once
        Images that are begun before the first is waited for.
    """

    def __init__(
        self,
        look: Callable[[Path], Inspection],
        take: Callable[[Inspection], None],
        pool: ThreadPoolExecutor,
        at_once: int,
    ) -> None:
        self._look, self._take, self._pool, self._at_once = look, take, pool, at_once
        self._steps: deque[tuple[Future[Inspection] | None, Callable[[], None]]] = deque()
        self._begun = 0

    def image(self, path: Path) -> None:
        """Look at an image, beside others."""
        future = self._pool.submit(self._look, path)
        self._begun += 1
        self._add(future, lambda: self._take(future.result()))

    def other(self, path: Path) -> None:
        """Look at anything else, when all before it is taken."""
        self.then(lambda: self._take(self._look(path)))

    def then(self, do: Callable[[], None]) -> None:
        """Do something when all before it is taken."""
        self._add(None, do)

    def end(self) -> None:
        """Do what is left."""
        while self._steps:
            self._do_first()

    def _add(self, future: Future[Inspection] | None, do: Callable[[], None]) -> None:
        self._steps.append((future, do))
        while self._steps and (self._begun > self._at_once or not self._begun):
            self._do_first()

    def _do_first(self) -> None:
        future, do = self._steps.popleft()
        self._begun -= future is not None
        do()


@contextlib.contextmanager
def several_at_once(look: Callable[[Path], Inspection], take: Callable[[Inspection], None]) -> Iterator[Several]:
    """Give `Several` on the cores of this process; at the end all is done. After an error, what is not begun is dropped."""
    at_once = min(_MOST_AT_ONCE, len(os.sched_getaffinity(0)))
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="cryoplug-inspect")
    try:
        several = Several(look, take, pool, at_once)
        yield several
        several.end()
    finally:
        pool.shutdown(cancel_futures=True)
