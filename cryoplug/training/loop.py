"""The training loop: Adam on the mean loss, one batch after another, best checkpoint kept."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryoplug.errors import CryoplugError, DivergedError, OtherProcessError
from cryoplug.machine.interrupts import Interrupts
from cryoplug.models.checkpoint import Checkpoint
from cryoplug.store.pairs import PairStore
from cryoplug.training.average import WeightAverage
from cryoplug.training.choice import Units, Verdict, judge_epoch, note_epoch, validation_units
from cryoplug.training.config import TrainConfig
from cryoplug.training.data.augment import Draw
from cryoplug.training.data.device_loader import open_loader
from cryoplug.training.data.loader import Batch, BatchLoader, crops_of_epoch, epoch_order
from cryoplug.training.data.mixing import Mixer
from cryoplug.training.data.recorruption import Recorruption
from cryoplug.training.data.split import Split
from cryoplug.training.distributed import ALONE, Processes
from cryoplug.training.engine import Engine
from cryoplug.training.pace import Pace
from cryoplug.training.progress import (
    BATCHES_PER_REPORT,
    Advance,
    BatchReport,
    Comparison,
    EpochReport,
    Note,
    Progress,
)
from cryoplug.training.run_folder import RunFolder
from cryoplug.training.saver import Saver
from cryoplug.training.schedule import gave_up, is_done, learning_rate
from cryoplug.training.state import Position, pack_state
from cryoplug.training.stepping import StepFailed, StepPlan, take_steps
from cryoplug.training.steps import Steps, open_steps
from cryoplug.training.validation import Validation, validate
from cryoplug.training.weights import weights_of

_PATCHES_NAMED = 8
FEW_STEPS = 100
"""With fewer steps than this, ``--minutes`` warns; the warm-up of the recipe for halves alone has 200."""


@dataclass
class Training:
    """A run in memory: everything the loop works on."""

    config: TrainConfig
    """Settings of the run."""
    store: PairStore
    """The training pairs."""
    split: Split
    """Which pairs train and which validate."""
    engine: Engine
    """Computes loss and gradients; holds the network."""
    optimizer: torch.optim.Optimizer
    """From `cryoplug.training.steps.make_optimizer`."""
    position: Position
    """Position of the run; changed in place."""
    checkpoint_head: Checkpoint
    """Model, normalization and pixel size of the checkpoints to write; its weights are not used."""
    environment: dict[str, Any]
    """Versions and machine, on which the last bits of a result depend; saved with the state."""
    folder: RunFolder | None
    """Run folder, to save into; None saves nothing."""
    device: torch.device
    """Device of the batches."""
    average: WeightAverage | None = None
    """The moving average of the weights, which is validated and kept; None keeps the weights themselves."""
    mixer: Mixer | Recorruption | None = None
    """Makes mixtures of halves, or of single exposures and drawn noise; None trains on the pairs themselves."""
    processes: Processes = ALONE
    """The processes that train together, seen from this one."""
    advance: Advance = field(default=lambda step, total: None, repr=False)
    """Called with the number of steps done in the whole run, and the number planned."""
    _steps: Steps = field(init=False, repr=False)
    _pace: Pace | None = field(default=None, init=False, repr=False)
    _said_steps: int | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Choose how to take steps on this device."""
        self._steps = open_steps(self.engine, self.optimizer, self.config, self.average, self.mixer, self.processes)

    def run(self, progress: Progress, interrupts: Interrupts | None = None) -> None:
        """Train until all epochs are done.

        Parameters
        ----------
        progress
            Called with every event.
        interrupts
            Signals that the caller already catches; some may have come. None catches them here.

        Raises
        ------
        DivergedError
            A loss or a gradient is not finite. The weights of that moment are finite and the best checkpoint is kept.
        Stopped
            A signal asked for an end; the state is saved.
        OtherProcessError
            Another process is gone, or reports the error of all.
        """
        if self.config.minutes is not None:
            position = self.position
            self._pace = Pace(self.config.minutes, planned=position.planned_steps, spent_s=position.spent_s)

        def note(text: str) -> None:
            progress(Note(text))

        loader = open_loader(self.store, self.config, device=self.device, note=note, processes=self.processes)
        with contextlib.nullcontext(interrupts) if interrupts else Interrupts() as interrupts:
            saver = Saver(
                interrupts,
                progress,
                save=self.save_state,
                position=self.position,
                config=self.config,
                saved=self.folder is not None,
                processes=self.processes,
            )
            with self.engine.looking(saver.look_at_signals):
                loader.prepare(self._steps.prepare)
                try:
                    while not is_done(self.position, self.config):
                        self._run_epoch(loader, saver, progress)
                except OtherProcessError:
                    # Steps that all took are worth going on from; on a GPU some may be under way, that are not counted yet.
                    if self.device.type == "cpu":
                        self.save_state()
                    raise
        if gave_up(self.position, self.config):
            best = self.position.lowest_epoch or self.position.best_epoch
            progress(Note(f"ended early: no epoch since {best} was better (--patience {self.config.patience})"))

    def _run_epoch(self, loader: BatchLoader, saver: Saver, progress: Progress) -> None:
        begin = time.perf_counter()
        waited_before = loader.waited_s
        patches_before = self.position.patches
        self._train_epoch(loader, saver, progress)
        train_seconds = time.perf_counter() - begin
        waited = loader.waited_s - waited_before
        patches = self.position.patches - patches_before
        validation = self._validate(loader, saver)
        self._finish_epoch(
            progress,
            validation=validation,
            samples_per_s=patches / train_seconds,
            waiting_for_data=min(1.0, waited / train_seconds),
            seconds=time.perf_counter() - begin,
        )
        saver.after_epoch()

    def _train_epoch(self, loader: BatchLoader, saver: Saver, progress: Progress) -> None:
        config, position = self.config, self.position
        order = epoch_order(self.split.train, seed=config.seed, epoch=position.epoch, shuffle=config.shuffle)
        if config.crops_per_epoch is not None:
            order = crops_of_epoch(order, config.crops_per_epoch, pairs=self.store.count())
        count = -(-len(order) // (config.batch_size * self.processes.world))
        if config.max_batches is not None:
            count = min(count, config.max_batches)
        draw = Draw(
            config.seed,
            position.epoch,
            turn=config.augment != "none",
            exchange=config.augment == "halves" and self.mixer is None,
            end_row=self.split.end_row,
        )
        first_batch, first_step = position.batch, position.step
        plan = StepPlan(
            is_wanted=lambda step: first_batch + step < count and not self._all_taken(first_step + step),
            learning_rate=lambda step: learning_rate(config, first_step + step, total_steps=self._total_steps(count)),
            number_in_run=lambda step: first_step + step + 1,
            in_a_hurry=saver.is_due,
        )

        def batches_from(step: int) -> Iterator[Batch]:
            return loader.batches(order, first=first_batch + step, limit=count, draw=draw)

        report = _RunningReport(position.epoch, count, config.loss, progress)
        try:
            with contextlib.closing(take_steps(self._steps, batches_from, plan)) as taken:
                for steps in taken:
                    for step in steps:
                        position.advance(step.loss, step.patches)
                        report.add(step.loss, step.patches, position.batch)
                    self._plan(progress)
                    total = self._total_steps(count)
                    self.advance(position.step, None if total == sys.maxsize else total)
                    saver.after_batch()
        except StepFailed as failure:
            raise self._diverged("training", position.batch + 1, failure.batch, failure.loss) from None

    def _total_steps(self, batches_an_epoch: int) -> int:
        if self.config.minutes is None:
            return self.config.epochs * batches_an_epoch
        return self.position.planned_steps or sys.maxsize

    def _all_taken(self, steps: int) -> bool:
        """Say whether these are all planned steps."""
        planned = self.position.planned_steps
        return planned is not None and steps >= planned

    def _plan(self, progress: Progress) -> None:
        """Plan the number of steps as soon as their speed is known, and correct it if the speed changes."""
        if self._pace is None:
            return
        planned = self.processes.from_first(self._pace.news(self.position.step))
        if planned is None:
            return
        before, self.position.planned_steps = self.position.planned_steps, planned
        said = self._said_steps
        newly_few = planned < FEW_STEPS and (said is None or said >= FEW_STEPS)
        if said is not None and not newly_few and 0.8 < planned / said < 1.25:
            return  # not worth a line
        self._said_steps = planned
        few = "; too few to learn much: more --minutes, a smaller network or a GPU" if newly_few else ""
        now = "" if before is None else " (corrected: their speed has changed)"
        progress(Note(f"--minutes {self.config.minutes:g}: {planned} steps{now}{few}"))

    def _validate(self, loader: BatchLoader, saver: Saver) -> Validation | None:
        def check(batch: Batch, number: int, loss: float) -> None:
            if not _finite(loss):
                raise self._diverged("validation", number, batch, loss)

        with contextlib.nullcontext() if self.average is None else self.average.in_the_network():
            self.processes.copy_from_first(list(self.engine.module.buffers()))
            return validate(
                self.engine,
                loader,
                self.split.validation,
                units=self._units,
                mixer=self.mixer,
                max_batches=self.config.max_batches,
                check=check,
                after_batch=saver.after_batch,
                processes=self.processes,
            )

    def _finish_epoch(
        self,
        progress: Progress,
        *,
        validation: Validation | None,
        samples_per_s: float,
        waiting_for_data: float,
        seconds: float,
    ) -> None:
        position = self.position
        train_loss = position.loss_sum / position.patches
        val_loss = None if validation is None else validation.loss
        judged = train_loss if val_loss is None else val_loss
        unit_losses = [] if validation is None else list(validation.unit_losses)
        lowest_before = position.lowest_epoch
        verdict = judge_epoch(position, judged, unit_losses)
        note_epoch(position, verdict, judged, unit_losses)
        if verdict.kept and self.folder is not None:
            self.folder.save_best(position.epoch, self._checkpoint(train_loss, val_loss), judged)
        report = EpochReport(
            epoch=position.epoch,
            train_loss=train_loss,
            val_loss=val_loss,
            best=verdict.kept,
            samples_per_s=round(samples_per_s, 3),
            seconds=round(seconds, 3),
            waiting_for_data=round(waiting_for_data, 4),
            checkpoint=self.best_folder(),
            loss_name=self.config.loss,
            compared=self._compared(verdict, lowest_before, len(unit_losses)),
        )
        position.finish_epoch(report.record())
        if self.folder is not None:
            # This order: a kill between any two lines leaves a run that goes on to the same end.
            self.save_state()
            self.folder.write_metrics(position.history)
            self.folder.keep_only(position.best_epoch or 0)
        progress(report)

    @cached_property
    def _units(self) -> Units | None:
        return validation_units(self.store, self.config, self.split.validation)

    def _compared(self, verdict: Verdict, lowest_before: int | None, count: int) -> Comparison | None:
        if verdict.difference is None or lowest_before is None or self._units is None:
            return None
        return Comparison(lowest_before, verdict.difference, verdict.standard_error, count, self._units.kind)

    def save_state(self) -> None:
        """Save everything that is needed to go on, if the run is saved. No step may be in progress."""
        if self._pace is not None:
            self.position.spent_s = self._pace.spent_s
        if self.folder is not None:
            payload = pack_state(
                self.engine.module,
                self.optimizer,
                self.position,
                environment=self.environment,
                average=self.average,
            )
            self.folder.write_state(payload)

    def best_folder(self) -> Path | None:
        """Return the folder of the best checkpoint; None if nothing is saved yet."""
        if self.folder is None or self.position.best_epoch is None:
            return None
        return self.folder.epoch_folder(self.position.best_epoch)

    def _checkpoint(self, train_loss: float, val_loss: float | None) -> Checkpoint:
        head = self.checkpoint_head
        details = {
            **head.details,
            "epoch": self.position.epoch,
            "train_loss": train_loss,
            "val_loss": val_loss,
        }
        weights = weights_of(self.engine.module) if self.average is None else self.average.weights()
        return Checkpoint(head.model_id, weights, head.config, head.normalize, head.pixel_size_angstrom, details)

    def _diverged(self, phase: str, number: int, batch: Batch, loss: float) -> CryoplugError:
        names = [
            self.store.describe(int(index) % self.store.count(), crop=crop)
            for index, crop in zip(batch.indices, batch.crops, strict=True)
        ]
        bad = []
        for row, name in enumerate(names):
            for side, tensor in (("noisy", batch.noisy), ("clean", batch.clean)):
                pixels = tensor[row, 0].cpu().numpy()
                count = int(pixels.size - np.isfinite(pixels).sum())
                if count:
                    y, x = np.argwhere(~np.isfinite(pixels))[0]
                    found = f"{count} {side} pixels of {pixels.size} are not finite, first at y {y}, x {x}"
                    bad.append(f"{name}: {found}")
        if phase == "training":  # all processes come here; in validation the one with the patch
            names, bad = (list(chain(*self.processes.everyone(lines))) for lines in (names, bad))
        if bad:
            cause = "; ".join(bad[:_PATCHES_NAMED]) + "; leave its micrograph out and convert again"
        else:
            shown = ", ".join(names[:_PATCHES_NAMED])
            cause = f"all pixels of its {len(names)} patches are finite ({shown}); try --lr below {self.config.lr:g}"
        best = self.best_folder()
        kept = f"the best checkpoint is kept: {best}" if best else "no checkpoint was saved yet"
        what = f"the loss is {loss}" if not _finite(loss) else f"the loss is {loss:g}, a gradient is not finite"
        error = DivergedError(
            f"{phase} diverged in epoch {self.position.epoch}, batch {number}: {what}; {cause}; {kept}"
        )
        return self.processes.said_by_first(error) if phase == "training" else error


class _RunningReport:
    """Mean loss and speed since the last report; there is a report after every hundredth batch."""

    def __init__(self, epoch: int, batches: int, loss_name: str, progress: Progress) -> None:
        self._epoch, self._batches, self._loss_name, self._progress = epoch, batches, loss_name, progress
        self._start()

    def add(self, loss: float, patches: int, batch: int) -> None:
        self._loss += loss * patches
        self._patches += patches
        if batch % BATCHES_PER_REPORT == 0:
            speed = self._patches / max(1e-9, time.perf_counter() - self._since)
            mean = self._loss / self._patches
            self._progress(BatchReport(self._epoch, batch, self._batches, mean, speed, self._loss_name))
            self._start()

    def _start(self) -> None:
        self._loss, self._patches, self._since = 0.0, 0, time.perf_counter()


def _finite(value: float) -> bool:
    return value - value == 0.0
