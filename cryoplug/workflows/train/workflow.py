"""Train a network on a store: open it, compare with an earlier run, train, keep the best checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cryoplug.errors import UsageError
from cryoplug.machine.interrupts import Interrupts
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.workflows.train.identity import (
    bits_note,
    run_record,
)
from cryoplug.workflows.train.opening import Opened, open_run
from cryoplug.workflows.train.page import PAGE_NAME, write_training_page
from cryoplug.workflows.train.processes import (
    check_all_see_the_same,
    following,
    of_a_step,
    processes_note,
    say_nothing,
    state_of_all,
)
from cryoplug.workflows.train.request import TrainRequest
from cryoplug.workflows.train.result import Judged, TrainResult

if TYPE_CHECKING:
    from cryoplug.reports.training_page import Example
    from cryoplug.training.config import TrainConfig
    from cryoplug.training.engine import Engine
    from cryoplug.training.loop import Training
    from cryoplug.training.progress import Advance, Event
    from cryoplug.training.run_folder import RunFolder
    from cryoplug.training.state import Position


def train(
    request: TrainRequest,
    progress: Callable[[Event], None],
    *,
    advance: Advance = lambda step, total: None,
) -> TrainResult:
    """Train, or go on with training.

    Parameters
    ----------
    request
        The request.
    progress
        Called with notes, with a report every 100 batches, and with one after each epoch.
    advance
        Called with the number of steps done, and the number planned for the whole run.

    Raises
    ------
    UsageError
        The folder holds a run of another configuration, or too few patches to hold any out.
    DivergedError, Stopped
        See `cryoplug.training.loop.Training.run`.
    OtherProcessError
        Another process of the run failed.
    """
    from cryoplug.training.distributed import open_processes
    from cryoplug.training.progress import Note

    with contextlib.ExitStack() as stack:
        # From the beginning: Slurm's warning may come while a store of a terabyte is being opened.
        interrupts = stack.enter_context(Interrupts())
        processes, device = stack.enter_context(open_processes(request.config.device))
        if not processes.first:
            request, progress, advance = following(request), say_nothing, lambda step, total: None
        with processes.agreeing():
            opened = open_run(request, processes, device, stack, progress)
        with processes.agreeing():
            check_all_see_the_same(opened.identity, processes)
        if note := processes_note(processes, opened.request.config):
            progress(Note(note))
        return _train(opened, progress, advance, interrupts)


def _train(opened: Opened, progress: Callable[[Event], None], advance: Advance, interrupts: Interrupts) -> TrainResult:
    from cryoplug.training.data.split import write_indices
    from cryoplug.training.distributed import cores_of_each
    from cryoplug.training.engine import choose_precision, open_engine
    from cryoplug.training.progress import EpochReport
    from cryoplug.training.schedule import is_done
    from cryoplug.training.weights import put_weights

    request, store, start, folder = opened.request, opened.store, opened.start, opened.folder
    config = request.config
    spec = model_spec(config.model).configured(config.model_options)
    module = spec.build(seed=config.seed, config=config.model_options)
    if start is not None:
        put_weights(module, start.checkpoint.weights)
    threads = config.threads or cores_of_each(opened.processes.launch)
    precision = choose_precision(config.precision, spec, opened.device)
    with open_engine(
        module,
        spec,
        device=opened.device,
        threads=threads,
        loss=config.loss,
        precision=precision,
        batch_size=config.batch_size,
    ) as engine:
        training = _training(opened, engine, progress, advance, threads=threads, precision=precision)
        position = training.position
        already_finished = is_done(position, config)
        if already_finished:
            _tidy(folder, position, config, progress)
        else:
            if folder is not None:
                folder.write_request(run_record(request, opened.identity, training.environment, finished=False))
                folder.write_validation_indices(write_indices(opened.split.validation))
            training.run(lambda event: _forward(event, folder, training, progress), interrupts)
    if folder is not None:
        folder.write_request(run_record(request, opened.identity, training.environment, finished=True))
    judged = _judged(opened, position, interrupts, progress)
    assert position.best_epoch is not None and position.best_loss is not None
    assert position.first_batch_loss is not None
    return TrainResult(
        epochs=tuple(EpochReport.from_record(record) for record in position.history),
        best_epoch=position.best_epoch,
        best_loss=position.best_loss,
        first_batch_loss=position.first_batch_loss,
        checkpoint=training.best_folder(),
        already_finished=already_finished,
        evaluation=judged.evaluation,
        verdict=judged.verdict,
        not_judged=judged.why_not,
        pairs=None if store.manifest is None else store.manifest.pairs,
        inputs=() if store.manifest is None else store.manifest.inputs,
        stated_angstrom=None if store.manifest is None else store.manifest.request.get("pixel_size"),
        required=request.require_better_than,
    )


def _training(
    opened: Opened,
    engine: Engine,
    progress: Callable[[Event], None],
    advance: Advance,
    *,
    threads: int,
    precision: str,
) -> Training:
    """Set up the run in memory, where an earlier part of it ended, if there is one."""
    from cryoplug.training.average import WeightAverage
    from cryoplug.training.engine import BandEngine, fingerprint
    from cryoplug.training.loop import Training
    from cryoplug.training.progress import Note
    from cryoplug.training.schedule import is_done
    from cryoplug.training.steps import make_optimizer
    from cryoplug.workflows.train.head import checkpoint_head
    from cryoplug.workflows.train.mixtures import mixer_of

    config, folder = opened.request.config, opened.folder
    device, processes, module = opened.device, opened.processes, engine.module
    on_gpu = device.type == "cuda"
    optimizer = make_optimizer(engine, config)
    average = None if config.ema is None else WeightAverage(module, config.ema)
    # Bands are summed in a fixed order: there, and on a GPU, the number of threads changes no bit.
    exact = isinstance(engine, BandEngine) or on_gpu
    environment = fingerprint(device, threads=None if exact else threads) | of_a_step(processes, config)
    if on_gpu:
        environment["kernels"] = engine.kernels
    if on_gpu or precision != "float32":
        environment["precision"] = precision
    position, before = state_of_all(folder, processes, module, optimizer, average, environment)
    if before is not None and folder is not None and not is_done(position, config):
        where = f"epoch {position.epoch}, batch {position.batch}"
        progress(Note(f"going on from {where} of {folder.path}{bits_note(before, environment)}"))
    mixer = mixer_of(opened, lambda text: progress(Note(text)))
    return Training(
        config=config,
        store=opened.store,
        split=opened.split,
        engine=engine,
        optimizer=optimizer,
        position=position,
        checkpoint_head=checkpoint_head(opened, mixed=mixer is not None),
        environment=environment,
        folder=folder,
        device=device,
        average=average,
        mixer=mixer,
        processes=processes,
        advance=advance,
    )


def _tidy(folder: RunFolder | None, position: Position, config: TrainConfig, progress: Callable[[Event], None]) -> None:
    """Do what follows the last state of a finished run: a kill may have fallen between the two."""
    from cryoplug.training.progress import Note
    from cryoplug.training.schedule import gave_up

    if folder is None:
        return
    folder.write_metrics(position.history)
    folder.keep_only(position.best_epoch or 0)
    _draw_loss_curve(folder, position.history, progress)
    done = f"{position.epoch - 1} (--patience)" if gave_up(position, config) else f"all {position.epoch - 1}"
    progress(Note(f"{folder.path}: {done} epochs are done already; nothing to do"))


def _judged(opened: Opened, position: Position, interrupts: Interrupts, progress: Callable[[Event], None]) -> Judged:
    """Evaluate the kept checkpoint, and write the page of the run."""
    from cryoplug.training.progress import Note
    from cryoplug.workflows.train.evaluation import evaluation_of_kept

    request, folder = opened.request, opened.folder
    if folder is None:
        return Judged(why_not="the network was not saved (--save)")
    if not request.evaluate:
        return Judged(why_not="--no-evaluation")
    examples: list[Example] = []
    kept = folder.epoch_folder(position.best_epoch or 0)
    judged = evaluation_of_kept(
        kept, opened.store, opened.split.validation, request.config, interrupts=interrupts, examples=examples
    )
    if judged.why_not:
        progress(Note(f"no evaluation: {judged.why_not}"))
    # A run that was killed behind its evaluation gets its page from the files alone.
    if examples or (judged.verdict is not None and not (folder.path / PAGE_NAME).is_file()):
        page = write_training_page(
            folder.path, position.history, load_checkpoint(kept), position.best_epoch or 0, examples
        )
        progress(Note(f"open in a browser: {page}"))
    return judged


def _forward(event: Event, folder: RunFolder | None, training: Training, progress: Callable[[Event], None]) -> None:
    from cryoplug.training.progress import EpochReport

    if folder is not None and isinstance(event, EpochReport):
        _draw_loss_curve(folder, training.position.history, progress if event.epoch == 1 else None)
    progress(event)


def _draw_loss_curve(
    folder: RunFolder, history: list[dict[str, Any]], progress: Callable[[Event], None] | None
) -> None:
    from cryoplug.reports.figures import loss_curve
    from cryoplug.training.progress import Note

    try:
        loss_curve(folder.loss_curve_path, history)
    except UsageError as error:  # matplotlib is an extra: training goes on without it
        if progress is not None:
            progress(Note(f"no loss curve: {error}"))
