from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cryoplug.training.pace import FOR_STEPS, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def plan(seconds_a_step: float, minutes: float, *, first_step_s: float = 0.0, done_before: int = 0) -> tuple[int, int]:
    clock = Clock()
    pace = Pace(minutes, clock=clock)
    clock.now += first_step_s
    for step in range(done_before + 1, 10**6):
        clock.now += seconds_a_step
        planned = pace.news(step)
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


def whole_run(
    seconds_of: Callable[[int], float], minutes: float, *, validation_s: float = 0.0
) -> tuple[float, list[int]]:
    """Take steps until the planned ones are done, validating after every hundredth; give the seconds and all plans."""
    clock, plans, step = Clock(), [], 0
    begun = clock.now
    pace = Pace(minutes, clock=clock)
    while not plans or step < plans[-1]:
        step += 1
        clock.now += seconds_of(step)
        if step % 100 == 0:
            clock.now += validation_s
        news = pace.news(step)
        if news is not None:
            assert news > step
            plans.append(news)
    return clock.now - begun, plans


@pytest.mark.parametrize("validation_s", [0.0, 0.05])
def test_a_steady_run_is_planned_once(validation_s: float) -> None:
    took, plans = whole_run(lambda step: 0.01, 5.0, validation_s=validation_s)
    assert len(plans) == 1 and 0.9 * 300 < took < 300


@pytest.mark.parametrize("speedup", [0.2, 0.6, 1.5, 4.0])
def test_a_run_that_becomes_faster_or_slower_still_takes_the_time_that_was_asked_for(speedup: float) -> None:
    took, plans = whole_run(lambda step: 0.02 if step < 200 else 0.02 / speedup, 5.0, validation_s=0.02)
    assert len(plans) > 1 and 0.85 * 300 < took < 1.05 * 300


def test_a_run_that_goes_on_has_the_time_that_is_left_and_keeps_a_number_that_fits() -> None:
    def plans(planned: int) -> list[int]:
        clock, found, step = Clock(), [], 1000
        pace = Pace(1.0, planned=planned, spent_s=20.0, clock=clock)
        while step < (found[-1] if found else planned):
            step += 1
            clock.now += 0.02
            found += [news for news in [pace.news(step)] if news is not None]
        return found

    clock = Clock()
    pace = Pace(1.0, spent_s=20.0, clock=clock)
    clock.now += 3.0
    assert pace.spent_s == 23.0
    assert plans(1000 + 1900) == [], "38 of the 40 seconds that are left"
    assert plans(1000 + 9000)[-1] == pytest.approx(1000 + 0.95 * 2000, rel=0.05)


@pytest.mark.parametrize("seconds_of_later_steps", [0.02, 0.5, 30.0, 400.0])
def test_a_run_whose_time_is_over_ends(seconds_of_later_steps: float) -> None:
    """On a busy machine the last planned step ends late; it must not be followed by one more, and that by another."""
    clock = Clock()
    pace = Pace(1.0, clock=clock)
    step, planned = 0, None
    while planned is None or step < planned:
        step += 1
        clock.now += 0.1 if step < 60 else seconds_of_later_steps
        said = pace.news(step)  # as the loop asks: after each step, also after the last one
        planned = planned if said is None else said
        assert step < 10_000
    assert clock.now - 100.0 < 60.0 + 2 * seconds_of_later_steps


@pytest.mark.parametrize("busy_until", [0.02, 0.1, 0.3, 0.6, 0.8, 0.9])
@pytest.mark.parametrize("speedup", [1.5, 3.0, 10.0, 100.0])
def test_a_plan_that_was_made_on_a_busy_machine_grows_when_the_machine_is_free(
    busy_until: float, speedup: float
) -> None:
    clock, planned, step = Clock(), None, 0
    pace = Pace(8.0, clock=clock)
    while planned is None or step < planned:
        step += 1
        clock.now += 0.3 if clock.now < 100 + busy_until * 480 else 0.3 / speedup
        planned = pace.news(step) or planned
    assert 0.9 * 480 - 1 < clock.now - 100 < 1.02 * 480


@pytest.mark.parametrize("seed", range(20))
def test_a_run_keeps_its_time_whatever_the_machine_does(seed: int) -> None:
    """Other programs come and go; steps are then ten times slower, or not."""
    random, clock, planned, step = np.random.default_rng(seed), Clock(), None, 0
    pace = Pace(8.0, clock=clock)
    slow, changes_at = False, 0.0
    while planned is None or step < planned:
        if clock.now >= changes_at:
            slow, changes_at = not slow, clock.now + random.exponential(60)
        step += 1
        clock.now += random.uniform(0.05, 0.15) * (10 if slow else 1)
        planned = pace.news(step) or planned
    assert 0.9 * 480 - 2 < clock.now - 100 < 480 + 2
