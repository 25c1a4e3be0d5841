"""Optimizer steps: one at a time, each checked before it changes the weights; or queued on a GPU, and checked there.

In both ways, a step whose loss or gradient is not finite changes nothing. On the GPU it sets a flag, which later steps obey.
So however late the host looks, weights, moments and average are those before the step that failed.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cryoplug.kernels.recording import collector_at_rest
from cryoplug.training.average import WeightAverage
from cryoplug.training.config import TrainConfig
from cryoplug.training.data.mixing import Mixer
from cryoplug.training.data.recorruption import Recorruption
from cryoplug.training.distributed import ALONE, Processes, Rows
from cryoplug.training.engine import Engine, WholeBatchEngine, memory_errors
from cryoplug.training.schedule import limit_gradients

QUEUE = 5
"""Steps to queue before the host looks at their losses."""


@dataclass(frozen=True)
class Outcome:
    """The result of the steps since the host last looked."""

    losses: tuple[float, ...]
    """Losses of the steps that were taken, in order."""
    failed: float | None = None
    """Loss of the next step if it failed, else None; the loss may be finite if a gradient is not."""


def make_optimizer(engine: Engine, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the founding program's Adam, or AdamW; on a GPU in one kernel, with the learning rate on the device."""
    parameters = list(engine.module.parameters())
    lr: float | torch.Tensor = config.lr
    if on_gpu := parameters[0].is_cuda:
        lr = torch.tensor(config.lr, device=parameters[0].device)
    options: dict[str, Any] = {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "fused": on_gpu, "capturable": on_gpu}
    if config.weight_decay:
        return torch.optim.AdamW(parameters, weight_decay=config.weight_decay, **options)
    return torch.optim.Adam(parameters, **options)


def open_steps(
    engine: Engine,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    average: WeightAverage | None,
    mixer: Mixer | Recorruption | None = None,
    processes: Processes = ALONE,
) -> Steps:
    """Give the kind of steps that suits the engine; with a mixer, steps are taken on mixtures."""
    on_gpu = next(engine.module.parameters()).is_cuda
    # Running means of a batch norm would take up a batch that fails: there each batch is looked at by itself.
    if on_gpu and isinstance(engine, WholeBatchEngine) and not any(True for _ in engine.module.buffers()):
        return QueuedSteps(engine, optimizer, config, average, mixer, processes)
    return CheckedSteps(engine, optimizer, config, average, mixer, processes)


class Steps(abc.ABC):
    """Steps of an optimizer on batches ``(b, 1, y, x)``."""

    queue = 1
    """Number of steps after which `outcome` must be called."""

    def __init__(
        self,
        engine: Engine,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig,
        average: WeightAverage | None,
        mixer: Mixer | Recorruption | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self._engine = engine
        self._optimizer = optimizer
        self._config = config
        self._average = average
        self._mixer = mixer
        self._processes = processes
        self._parameters = list(engine.module.parameters())

    @abc.abstractmethod
    def take(
        self,
        noisy: torch.Tensor,
        clean: torch.Tensor,
        *,
        lr: float,
        number: int,
        images: Sequence[int] = (),
        rows: Rows | None = None,
    ) -> None:
        """Take a step, or queue it.

        Parameters
        ----------
        noisy, clean
            The batch.
        lr
            Learning rate.
        number
            Number of the step, from 1; the average of the weights depends on it.
        images
            Number of the stored image of each crop.
        rows
            Rows of this process in the batch that all processes share; None for all rows.
        """

    @abc.abstractmethod
    def outcome(self) -> Outcome:
        """Wait until all steps are done, and give their result."""

    def prepare(self, noisy: torch.Tensor, clean: torch.Tensor) -> bool:
        """Do the work that would make the first steps slow; say whether they now have all their memory."""
        return False

    def checked(self) -> Steps:
        """Give steps that are checked one by one, to repeat one that failed."""
        return self

    def _put_gradients(self, gradients: list[torch.Tensor]) -> None:
        if self._config.clip_norm is not None:
            limit_gradients(gradients, self._config.clip_norm)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient

    def _put_learning_rate(self, lr: float) -> None:
        group = self._optimizer.param_groups[0]
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


class CheckedSteps(Steps):
    """Steps whose loss is known before they change the weights."""

    _outcome_of_last = Outcome(())

    def take(
        self,
        noisy: torch.Tensor,
        clean: torch.Tensor,
        *,
        lr: float,
        number: int,
        images: Sequence[int] = (),
        rows: Rows | None = None,
    ) -> None:
        """Take a step."""
        if self._mixer is not None:
            self._mixer.prepare(number, shape=noisy.shape, images=images, rows=rows)
            noisy, clean = self._mixer.mix(noisy, clean)
        loss, gradients = self._engine.loss_and_gradients(noisy, clean)
        if self._processes.world > 1:
            weight = 1.0 if rows is None else rows.weight
            loss = self._processes.average(gradients[0].new_tensor(loss), gradients, weight).item()
        if self._mixer is not None:
            loss *= self._mixer.loss_scale
        if not (_finite(loss) and _all_finite(gradients)):
            self._outcome_of_last = Outcome((), failed=loss)
            return
        self._put_gradients(gradients)
        self._put_learning_rate(lr)
        self._optimizer.step()
        if self._average is not None:
            self._average.update(number)
        self._outcome_of_last = Outcome((loss,))

    def outcome(self) -> Outcome:
        """Give the result of the last step; a second call gives nothing."""
        outcome, self._outcome_of_last = self._outcome_of_last, Outcome(())
        return outcome


class QueuedSteps(Steps):
    """Steps on a GPU: the host queues them and looks at their losses later. Steps on batches of one shape are recorded once."""

    queue = QUEUE

    def __init__(
        self,
        engine: WholeBatchEngine,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig,
        average: WeightAverage | None,
        mixer: Mixer | Recorruption | None = None,
        processes: Processes = ALONE,
    ) -> None:
        super().__init__(engine, optimizer, config, average, mixer, processes)
        self._whole: WholeBatchEngine = engine
        device = self._parameters[0].device
        self._failed = torch.zeros((), device=device)
        self._blend = torch.zeros((), device=device)
        self._weight = torch.ones((), device=device)
        self._outcome = torch.zeros(2, device=device)
        self._outcomes = torch.zeros((QUEUE, 2), device=device)
        self._count = 0
        self._last_key: tuple[object, ...] = ()
        self._recorded_key: tuple[object, ...] = ()
        self._graph: torch.cuda.CUDAGraph | None = None
        # A fused optimizer leaves everything as it is where this is 1: what a gradient scaler relies on.
        optimizer.found_inf = self._failed  # type: ignore[attr-defined]

    def take(
        self,
        noisy: torch.Tensor,
        clean: torch.Tensor,
        *,
        lr: float,
        number: int,
        images: Sequence[int] = (),
        rows: Rows | None = None,
    ) -> None:
        """Queue a step."""
        self._put_learning_rate(lr)
        if self._mixer is not None:
            self._mixer.prepare(number, shape=noisy.shape, images=images, rows=rows)
        self._weight.fill_(1.0 if rows is None else rows.weight)
        if self._average is not None:
            self._blend.fill_(self._average.weight_of_step(number))
        key = (noisy.data_ptr(), clean.data_ptr(), noisy.shape)
        with memory_errors(self._engine.module, noisy):
            if key == self._recorded_key and self._graph is not None:
                self._graph.replay()
            elif key == self._last_key and self._whole.worth_recording(noisy):
                self._record(noisy, clean, key)
            else:
                self._compute(noisy, clean)
        self._last_key = key
        self._outcomes[self._count].copy_(self._outcome)
        self._count += 1

    def outcome(self) -> Outcome:
        """Wait for all queued steps; if one failed, clear the flag, so that later steps can run."""
        outcomes = self._outcomes[: self._count].tolist() if self._count else []
        self._count = 0
        losses: list[float] = []
        for loss, failed in outcomes:
            if failed:
                self._failed.zero_()
                return Outcome(tuple(losses), failed=loss)
            losses.append(loss)
        return Outcome(tuple(losses))

    def prepare(self, noisy: torch.Tensor, clean: torch.Tensor) -> bool:
        """Load all kernels and record the step, with steps that count as failed and so change nothing."""
        self._failed.fill_(1.0)
        for _ in range(2):
            self.take(noisy, clean, lr=self._config.lr, number=1)
        self.outcome()
        return True

    def checked(self) -> Steps:
        """Give steps that are checked one by one."""
        return CheckedSteps(self._engine, self._optimizer, self._config, self._average, self._mixer, self._processes)

    def _record(self, noisy: torch.Tensor, clean: torch.Tensor, key: tuple[object, ...]) -> None:
        self._graph = None  # its memory is free before the new one asks for as much
        graph = torch.cuda.CUDAGraph()
        # The loader's threads go on copying meanwhile, which a recording that minds all threads would refuse.
        with collector_at_rest(), torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._compute(noisy, clean)
        self._graph, self._recorded_key = graph, key
        graph.replay()

    def _compute(self, noisy: torch.Tensor, clean: torch.Tensor) -> None:
        if self._mixer is not None:
            noisy, clean = self._mixer.mix(noisy, clean)
        loss, gradients = self._whole.enqueue(noisy, clean)
        loss = self._processes.average(loss, gradients, self._weight)
        sums = torch.stack([loss, *(gradient.sum() for gradient in gradients)])
        torch.maximum(self._failed, sums.isfinite().all().logical_not().float(), out=self._failed)
        self._put_gradients(gradients)
        self._optimizer.step()
        if self._average is not None:
            self._average.blend(self._blend * (1.0 - self._failed))
        scale = 1.0 if self._mixer is None else self._mixer.loss_scale
        torch.stack((loss.detach().float() * scale, self._failed), out=self._outcome)


def _finite(value: float) -> bool:
    return value - value == 0.0


def _all_finite(gradients: list[torch.Tensor]) -> bool:
    return bool(torch.stack([gradient.sum() for gradient in gradients]).isfinite().all())
