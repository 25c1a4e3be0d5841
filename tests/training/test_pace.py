from __future__ import annotations

import pytest

from cryoplug.training.pace import FOR_STEPS, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def plan(seconds_a_step: float, minutes: float, *, first_step_s: float = 0.0, done_before: int = 0) -> tuple[int, int]:
    clock = Clock()
    pace = Pace(minutes, clock)
    clock.now += first_step_s
    for step in range(done_before + 1, 10**6):
        clock.now += seconds_a_step
        planned = pace.planned_steps(step)
        if planned is not None:
            return planned, step
    raise AssertionError("never planned")


@pytest.mark.parametrize("seconds_a_step", [0.001, 0.02, 0.5, 2.0])
def test_the_planned_steps_fill_the_time_and_leave_some_for_validation(seconds_a_step: float) -> None:
    planned, told_at = plan(seconds_a_step, 5.0, first_step_s=4.0)
    took = 4.0 + seconds_a_step * planned
    assert FOR_STEPS * 300 * 0.97 < took < 300
    assert told_at * seconds_a_step <= 75


def test_compilation_in_the_first_steps_does_not_count_as_their_speed() -> None:
    planned, _ = plan(0.01, 5.0, first_step_s=40.0)
    assert planned == pytest.approx(FOR_STEPS * 260 / 0.01, rel=0.02)


def test_steps_longer_than_the_whole_time_still_end() -> None:
    planned, told_at = plan(200.0, 1.0)
    assert told_at <= planned <= told_at + 1


def test_a_run_that_goes_on_plans_from_where_it_is() -> None:
    planned, _ = plan(0.1, 1.0, done_before=5000)
    assert 5000 + 500 < planned < 5000 + 600
