"""How many steps fit into the time that was asked for: planned once their speed is known, corrected if it changes.

The number of steps and the time spent are part of the state, so a run that was killed goes on with both. At a steady speed
the number is never corrected; then the result depends on the number alone, not on the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_STEPS = 5
"""Steps that are not measured, because libraries choose their algorithms in them."""
MEASURED_STEPS = 40
"""Steps that are measured, unless they take more than `MEASURED_PART` of the time."""
MEASURED_PART = 0.1
"""Part of the time between two looks at the speed. There is another look when half of the remaining steps are done, so a
plan that would end too early always grows before it ends, however fast the steps become."""
FOR_STEPS = 0.93
"""Part of the remaining time that is planned for steps; the rest is for validation and saving."""
SPARE_PART = 0.1
"""A plan stays unchanged if it ends within the time, and leaves at most this part of it."""


class Pace:
    """Plans the number of steps of a run.

    Parameters
    ----------
    minutes
        The time that the run should take.
    planned
        Steps that an earlier part of the run had planned for the whole run, if any.
    spent_s
        Seconds that earlier parts of the run took.
    clock
        Gives the time in seconds; tests replace it.
    """

    def __init__(
        self,
        minutes: float,
        *,
        planned: int | None = None,
        spent_s: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._seconds = 60.0 * minutes
        self._clock = clock
        self._begun = clock()
        self._spent_before = spent_s
        self._end = self._begun + max(0.0, self._seconds - spent_s)
        self._planned = planned
        self._first_step: int | None = None
        self._since: tuple[int, float] | None = None
        self._next_look: int | None = None

    @property
    def spent_s(self) -> float:
        """Seconds that the run has taken, with its earlier parts."""
        return self._spent_before + self._clock() - self._begun

    def news(self, step: int) -> int | None:
        """Give the number of steps for the whole run, if it has changed since the last call.

        Parameters
        ----------
        step
            Steps done so far, with those of earlier parts; until the time is over, at least one more is planned.
        """
        now = self._clock()
        if now >= self._end and self._planned is not None and step >= self._planned:
            return None  # the time is over, and so is the run
        self._first_step = step if self._first_step is None else self._first_step
        if self._since is None:
            # A step that takes minutes is measured together with its preparations rather than not at all.
            early = now - self._begun < MEASURED_PART * self._seconds
            if step - self._first_step < FIRST_STEPS and early and now < self._end:
                return None
            self._begin_to_measure(step, now)
            return self._said(step, 0.0, now) if now >= self._end else None
        first, since = self._since
        measured, took = step - first, now - since
        enough = took >= MEASURED_PART * self._seconds or (self._planned is None and measured >= MEASURED_STEPS)
        half_done = self._next_look is not None and step >= self._next_look
        if measured < 1 or not (enough or half_done or now >= self._end):
            return None
        news = self._said(step, measured / took if took > 0 else 0.0, now)
        self._begin_to_measure(step, now)
        return news

    def _begin_to_measure(self, step: int, now: float) -> None:
        self._since = step, now
        self._next_look = None if self._planned is None else step + max(1, (self._planned - step) // 2)

    def _said(self, step: int, per_second: float, now: float) -> int | None:
        if self._planned is not None and per_second > 0:
            spare = self._end - now - (self._planned - step) / per_second
            if 0 <= spare <= SPARE_PART * self._seconds:
                return None
        said = step + max(1, int(FOR_STEPS * max(0.0, self._end - now) * per_second))
        before, self._planned = self._planned, said
        return None if said == before else said
