"""How far a run is, and how long it will still take, judged by the speed of the last files or steps."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable


class TimeLeft:
    """Follows a count on its way to a total.

    Parameters
    ----------
    last
        Number of last counts from which the speed is computed: few enough to follow a machine that becomes slower, and
        enough to smooth files that finish together.
    clock
        Gives the time in seconds; tests replace it.
    """

    def __init__(self, *, last: int = 50, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque([(clock(), 0)], maxlen=last + 1)
        self.done = 0
        """Count done so far, also by earlier runs."""
        self.total: int | None = None
        """The total; None if it is not known."""

    def expect(self, total: int | None) -> None:
        """Set the total. If there was nothing to do before, the clock starts now."""
        if self.total is None or self.done >= self.total:
            self._restart()
        self.total = total

    def reach(self, done: int, *, free: bool = False) -> None:
        """Set the count. `free` counts were done by an earlier run, so they do not change the speed."""
        self.done = done
        if free:
            self._restart()
        else:
            self._marks.append((self._clock(), done))

    @property
    def left_s(self) -> float | None:
        """Seconds until all are done; None if that is not known or nothing is left."""
        (began, first), (ended, last) = self._marks[0], self._marks[-1]
        if self.total is None or last <= first or self.done >= self.total:
            return None
        left = (self.total - self.done) * (ended - began) / (last - first)
        return max(0.0, left - (self._clock() - ended))

    @property
    def part(self) -> float | None:
        """Part that is done, 0 to 1; None while the total is not known."""
        return None if not self.total else min(1.0, self.done / self.total)

    @property
    def count_text(self) -> str:
        """The count in words, such as ``3 of 12, 00:41 left``; empty while the total is not known."""
        return "" if self.total is None else f"{min(self.done, self.total)} of {self.total}{self._left_text}"

    @property
    def percent_text(self) -> str:
        """The part in words, such as ``25 %, 00:41 left``; empty while the total is not known."""
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
