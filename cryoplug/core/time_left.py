"""How far a run is, and how long it will still take: counted in files or steps, as fast as the last ones were."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable


class TimeLeft:
    """Watches a count that goes up to a total.

    Parameters
    ----------
    last
        How many of the last counts make up the speed: it follows a machine that becomes slower, and many files at once make
        no waves.
    clock
        Seconds; for tests.
    """

    def __init__(self, *, last: int = 50, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque([(clock(), 0)], maxlen=last + 1)
        self.done = 0
        """What is done, whoever did it."""
        self.total: int | None = None
        """What there is; None: not known."""

    def expect(self, total: int | None) -> None:
        """Say how many there are; where there was nothing to do before, time counts from now on."""
        if self.total is None or self.done >= self.total:
            self._restart()
        self.total = total

    def reach(self, done: int, *, free: bool = False) -> None:
        """Say how many are done; `free`: without work, since an earlier run did them, so they say nothing about the speed."""
        self.done = done
        if free:
            self._restart()
        else:
            self._marks.append((self._clock(), done))

    @property
    def left_s(self) -> float | None:
        """Seconds until all are done; None where nothing is known or nothing is left."""
        (began, first), (ended, last) = self._marks[0], self._marks[-1]
        if self.total is None or last <= first or self.done >= self.total:
            return None
        left = (self.total - self.done) * (ended - began) / (last - first)
        return max(0.0, left - (self._clock() - ended))

    @property
    def part(self) -> float | None:
        """What part is done, 0 to 1; None while the total is not known."""
        return None if not self.total else min(1.0, self.done / self.total)

    @property
    def count_text(self) -> str:
        """The words for people: ``3 of 12, 00:41 left``; empty while the total is not known."""
        return "" if self.total is None else f"{min(self.done, self.total)} of {self.total}{self._left_text}"

    @property
    def percent_text(self) -> str:
        """The words for people: ``25 %, 00:41 left``; empty while the total is not known."""
        return "" if self.part is None else f"{int(100 * self.part)} %{self._left_text}"

    @property
    def _left_text(self) -> str:
        return "" if self.left_s is None else f", {duration_text(self.left_s)} left"

    def _restart(self) -> None:
        self._marks = deque([(self._clock(), self.done)], maxlen=self._marks.maxlen)


def duration_text(seconds: float) -> str:
    """Write a duration as a clock does: ``00:41``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
