"""How many steps fit into the time that was asked for: measured once, then a number like any other.

From then on the run is a function of that number, not of the clock: it is part of the state, so that a run that was
killed goes on to the same end.
"""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_STEPS = 5
"""Steps that are not measured: libraries choose their algorithms in them."""
MEASURED_STEPS = 40
"""Steps that are measured, unless they take more than `MEASURED_PART` of the time."""
MEASURED_PART = 0.1
FOR_STEPS = 0.93
"""Part of the time that is left for steps; the rest is for validation and saving."""


class Pace:
    """Watches the first steps of a run.

    Parameters
    ----------
    minutes
        The time that the run should take, from now.
    clock
        Seconds; for tests.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._seconds = 60.0 * minutes
        self._clock = clock
        self._begun = clock()
        self._first: tuple[int, float] | None = None
        self._seen: int | None = None

    def planned_steps(self, step: int) -> int | None:
        """Say how many steps the whole run shall have; None while it is too early to tell.

        Parameters
        ----------
        step
            Steps that are done, earlier parts of the run included; at least one more is always planned.
        """
        now = self._clock()
        self._seen = step if self._seen is None else self._seen
        spent = now - self._begun
        if self._first is None:
            # A step that takes minutes is measured together with its preparations rather than not at all.
            if step - self._seen < FIRST_STEPS and spent < MEASURED_PART * self._seconds:
                return None
            self._first = step, now
            if spent < self._seconds:
                return None
        first, since = self._first
        measured, took = step - first, now - since
        late = spent >= 2 * MEASURED_PART * self._seconds
        if spent < self._seconds and (measured < 1 or (measured < MEASURED_STEPS and not late)):
            return None
        per_second = measured / took if measured and took > 0 else 0.0
        return step + max(1, int(FOR_STEPS * max(0.0, self._seconds - spent) * per_second))
