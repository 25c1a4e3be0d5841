"""A bounded queue between two threads, which either end can close."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_POLL_S = 0.1


class Closed(Exception):
    """The other end of a channel has gone."""


class Channel(Generic[T]):
    """A bounded queue that either end can close, without leaving the other one waiting."""

    def __init__(self, size: int) -> None:
        self._items: deque[T] = deque()
        self._size = size
        self._closed = False
        self._aborted = False
        self._changed = threading.Condition()

    @property
    def aborted(self) -> bool:
        """Whether the reader has gone, so that no item will be taken any more."""
        return self._aborted

    @property
    def is_empty(self) -> bool:
        """Whether there is no item to take now."""
        return not self._items

    def put(self, item: T) -> None:
        """Add an item, and wait for room; raise `Closed` if the reader has gone."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._aborted or len(self._items) < self._size)
            if self._closed or self._aborted:
                raise Closed
            self._items.append(item)
            self._changed.notify_all()

    def messages(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[T]:
        """Take items until the channel is closed and empty, or aborted, or `should_stop` returns True."""
        while True:
            with self._changed:
                # A signal handler runs in the main thread only when this wait ends now and then.
                while not (self._items or self._closed or self._aborted or should_stop()):
                    self._changed.wait(_POLL_S)
                if self._aborted or not self._items or should_stop():
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item

    def close(self) -> None:
        """Say that nothing more will come; items inside are still delivered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Drop the items inside, unless the channel was closed: then they are still delivered."""
        with self._changed:
            if not self._closed:
                self._aborted = True
                self._items.clear()
            self._changed.notify_all()
