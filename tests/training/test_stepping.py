"""Laws of taking the steps of an epoch: each once and in order, whatever fails and whoever waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from cryoplug.store.pairs import Crop
from cryoplug.training.data.loader import Batch
from cryoplug.training.distributed import ALONE
from cryoplug.training.stepping import StepFailed, StepPlan, TakenStep, take_steps
from cryoplug.training.steps import Outcome

COUNT = 13


@dataclass
class Recorded:
    """Steps that fail where they are told to: when they are queued, or also by themselves."""

    queue: int
    fails_queued: frozenset[int] = frozenset()
    fails_alone: frozenset[int] = frozenset()
    taken: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    _under_way: list[int] = field(default_factory=list)

    def take(self, noisy: torch.Tensor, clean: torch.Tensor, *, lr: float, number: int, **others: Any) -> None:
        assert int(noisy) == number - 1, "the batch belongs to the step"
        self._under_way.append(number - 1)
        self.rates.append(lr)

    def outcome(self) -> Outcome:
        losses, failing = [], self.fails_alone if self.queue == 1 else self.fails_queued | self.fails_alone
        steps, self._under_way[:] = list(self._under_way), []
        for step in steps:
            if step in failing:
                return Outcome(tuple(losses), failed=float("inf"))
            self.taken.append(step)
            losses.append(float(step))
        return Outcome(tuple(losses))

    def checked(self) -> Recorded:
        alone = Recorded(1, self.fails_queued, self.fails_alone, self.taken, self.rates)
        alone._under_way = self._under_way
        return alone


def batches_from(first: int) -> Iterator[Batch]:
    for step in range(first, COUNT):
        pixels = torch.tensor(float(step))
        yield Batch(np.arange(2), pixels, pixels, (Crop(0, 0, 0), Crop(1, 0, 0)), ALONE.rows(2))


def plan(count: int = COUNT, **changes: Any) -> StepPlan:
    return StepPlan(lambda step: step < count, lambda step: 0.1 * step, lambda step: step + 1, **changes)


@pytest.mark.parametrize("queue", [1, 2, 5, 20])
@pytest.mark.parametrize("fails", [[], [0], [4], [5, 6], [12], range(13)], ids=str)
def test_every_step_is_taken_once_and_in_order_whatever_fails_in_the_queue(queue: int, fails: list[int]) -> None:
    steps = Recorded(queue, frozenset(fails))
    found = [step for group in take_steps(steps, batches_from, plan()) for step in group]  # type: ignore[arg-type]
    assert steps.taken == list(range(COUNT))
    assert found == [TakenStep(float(step), 2) for step in range(COUNT)]


@pytest.mark.parametrize("queue", [1, 5])
@pytest.mark.parametrize("bad", [0, 3, 7, 12])
def test_a_step_that_fails_by_itself_ends_all_and_those_before_it_are_known(queue: int, bad: int) -> None:
    steps, found = Recorded(queue, fails_alone=frozenset([bad])), []
    with pytest.raises(StepFailed) as raised:
        for group in take_steps(steps, batches_from, plan()):  # type: ignore[arg-type]
            found += group
    assert int(raised.value.batch.noisy) == bad and [int(step.loss) for step in found] == list(range(bad))


def test_none_is_under_way_when_somebody_is_in_a_hurry() -> None:
    steps = Recorded(5)
    hurry = plan(in_a_hurry=lambda: len(steps.rates) == 3)
    assert [len(group) for group in take_steps(steps, batches_from, hurry)] == [3, 5, 5]  # type: ignore[arg-type]
    assert not steps._under_way


def test_a_run_that_ends_earlier_than_its_batches_waits_for_what_is_queued() -> None:
    steps = Recorded(5)
    assert [len(group) for group in take_steps(steps, batches_from, plan(7))] == [5, 2]  # type: ignore[arg-type]


def test_each_step_has_the_learning_rate_of_its_number_also_the_second_time() -> None:
    steps = Recorded(5, frozenset([3]))
    list(take_steps(steps, batches_from, plan()))  # type: ignore[arg-type]
    assert steps.rates == pytest.approx([0.1 * step for step in [*range(5), *range(3, COUNT)]])
