"""Take the steps of an epoch: queued if the device can; a step that failed is repeated by itself. The loop gets those taken."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from cryoplug.training.data.loader import Batch, closing_batches
from cryoplug.training.steps import Steps


@dataclass(frozen=True)
class TakenStep:
    """A step that changed the weights."""

    loss: float
    """Mean loss of its batch before the step."""
    patches: int
    """Patches of its batch."""


class StepFailed(Exception):
    """A loss or a gradient is not finite, also when the step is taken by itself."""

    def __init__(self, batch: Batch, loss: float) -> None:
        super().__init__(f"loss {loss}")
        self.batch = batch
        self.loss = loss


@dataclass(frozen=True)
class StepPlan:
    """The steps to take. Their numbers count from 0, at the batch where this epoch begins or goes on."""

    is_wanted: Callable[[int], bool]
    """Whether there is a step of this number; called again and again, because a run by time may end earlier."""
    learning_rate: Callable[[int], float]
    """Learning rate of the step of this number."""
    number_in_run: Callable[[int], int]
    """Number of the step in the whole run, from 1."""
    in_a_hurry: Callable[[], bool] = lambda: False
    """Whether queued steps must be finished now, because a signal came or the state must be saved."""


def take_steps(
    steps: Steps, batches_from: Callable[[int], Iterator[Batch]], plan: StepPlan
) -> Generator[list[TakenStep], None, None]:
    """Take step after step; yield those that were taken whenever no step is in progress.

    A GPU gets several steps before the host looks at their losses. If one of them failed, it and those after it did not change
    the weights. Then the batches are read again from there, and that step is repeated by itself.

    Parameters
    ----------
    steps
        Takes the steps.
    batches_from
        Gives the batches, beginning with that of a given step.
    plan
        Which steps to take, and how.

    Raises
    ------
    StepFailed
        A step failed when repeated by itself. The weights are those before it.
    """
    done, by_itself = 0, False
    while plan.is_wanted(done):
        with closing_batches(batches_from(done)) as batches:
            under_way: list[int] = []
            for batch in batches:
                taking = steps.checked() if by_itself else steps
                step = done + len(under_way)
                taking.take(
                    batch.noisy,
                    batch.clean,
                    lr=plan.learning_rate(step),
                    number=plan.number_in_run(step),
                    images=[crop.image for crop in batch.crops],
                    rows=batch.rows,
                )
                under_way.append(batch.rows.whole)
                if len(under_way) < taking.queue and plan.is_wanted(step + 1) and not plan.in_a_hurry():
                    continue
                outcome = taking.outcome()
                taken = [TakenStep(loss, patches) for loss, patches in zip(outcome.losses, under_way, strict=False)]
                done += len(taken)
                under_way = []
                if taken:
                    yield taken
                if outcome.failed is not None and taking.queue == 1:
                    raise StepFailed(batch, outcome.failed)
                by_itself = outcome.failed is not None
                if by_itself or not plan.is_wanted(done):
                    break
