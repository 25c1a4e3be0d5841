"""Train a network on a store: open, compare with what an earlier run left, train, keep the best checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryoplug.errors import UsageError
from cryoplug.machine.interrupts import Interrupts
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.reports.evaluation_record import recorded_verdict
from cryoplug.store.grey_scale import remark_on_store
from cryoplug.store.pairs import PairStore, open_store
from cryoplug.workflows.train.identity import (
    bits_note,
    compare_with_earlier_run,
    run_identity,
    run_record,
    software_versions,
)
from cryoplug.workflows.train.processes import (
    check_all_see_the_same,
    following,
    of_a_step,
    processes_note,
    say_nothing,
    state_of_all,
)
from cryoplug.workflows.train.request import TrainRequest
from cryoplug.workflows.train.result import TrainResult
from cryoplug.workflows.train.start import Start, check_store, started

if TYPE_CHECKING:
    import torch

    from cryoplug.reports.evaluation import Summary
    from cryoplug.training.config import TrainConfig
    from cryoplug.training.data.mixing import Mixer
    from cryoplug.training.data.recorruption import Recorruption
    from cryoplug.training.data.split import Split
    from cryoplug.training.distributed import Processes
    from cryoplug.training.progress import Event
    from cryoplug.training.run_folder import RunFolder


def train(request: TrainRequest, progress: Callable[[Event], None]) -> TrainResult:
    """Train, or go on with training.

    Parameters
    ----------
    request
        What to do.
    progress
        Called with notes, with a report every 100 batches, and with one after each epoch.

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
            request, progress = following(request), say_nothing
        with processes.agreeing():
            opened = _open(request, processes, device, stack, progress)
        with processes.agreeing():
            check_all_see_the_same(opened.identity, processes)
        if note := processes_note(processes, opened.request.config):
            progress(Note(note))
        return _train(opened, progress, interrupts)


@dataclass(frozen=True)
class _Opened:
    """What a run works on, checked."""

    request: TrainRequest
    """Completed by the recipe."""
    store: PairStore
    """The training pairs."""
    split: Split
    """Which of them train and which validate."""
    start: Start | None
    """The checkpoint that training starts from."""
    identity: dict[str, Any]
    """From `run_identity`."""
    folder: RunFolder | None
    """Held by this run; None when nothing is saved, or by another process of the run."""
    device: torch.device
    """Where this process computes."""
    processes: Processes
    """Who train together."""


def _open(
    request: TrainRequest,
    processes: Processes,
    device: torch.device,
    stack: contextlib.ExitStack,
    progress: Callable[[Event], None],
) -> _Opened:
    """Open the store and the run folder, and refuse what cannot be done; they close with the stack."""
    from cryoplug.training.data.split import split_patches
    from cryoplug.training.progress import Note

    request, start = started(request)
    _one_output(request.config)
    if request.config.cache == "gpu" and device.type != "cuda":
        raise UsageError(f"--cache gpu, but training runs on {device}; give --cache auto, or --device cuda")
    config = _completed(request, on_gpu=device.type == "cuda", goes_on=start is not None)
    request = dataclasses.replace(request, config=config)
    store = stack.enter_context(open_store(request.data, patch_size=config.patch_size, crop_size=config.crop_size))
    if config.augment == "halves" and store.manifest is not None and store.manifest.pairs != "halves":
        raise UsageError(
            f"{store.path}: a store of --pairs {store.manifest.pairs}, whose sides must not be exchanged; "
            "give --augment dihedral, or convert --pairs halves"
        )
    if config.crops_per_epoch is not None and not store.whole:
        raise UsageError(f"{store.path}: a store of patches; --crops-per-epoch needs one of convert --store whole")
    split = split_patches(store, fraction=config.val_split, seed=config.seed, val_indices=request.val_indices)
    if start is not None:
        check_store(start, store.manifest)
        progress(Note(start.note))
    identity = run_identity(request, store, split, None if start is None else start.sha256)
    folder = None
    if request.save:
        from cryoplug.training.run_folder import RunFolder

        folder = stack.enter_context(RunFolder(request.checkpoint_dir / config.model))
        compare_with_earlier_run(folder, request, identity, progress, processes=processes.world)
    else:
        progress(Note("nothing will be saved; give --save to keep the best checkpoint"))
    for text in (split.note, remark_on_store(store)):
        if text:
            progress(Note(text))
    return _Opened(request, store, split, start, identity, folder, device, processes)


def _completed(request: TrainRequest, *, on_gpu: bool, goes_on: bool) -> TrainConfig:
    """Fill in by the recipe what the user left open; for that the store is looked at."""
    from cryoplug.training.presets import with_recipe

    config = request.config
    with open_store(request.data, patch_size=config.patch_size, crop_size=config.crop_size) as store:
        manifest = store.manifest
        whole = [store.image_shape(image) for image in range(store.images())] if store.whole else []
        return with_recipe(
            config,
            request.recipe,
            pairs=None if manifest is None else manifest.pairs,
            patch_shape=store.patch_shape,
            whole=(min(y for y, _ in whole), min(x for _, x in whole)) if whole else None,
            on_gpu=on_gpu,
            given=request.given | ({"model_options"} if goes_on else set()),
            goes_on=goes_on,
        )


def _train(opened: _Opened, progress: Callable[[Event], None], interrupts: Interrupts) -> TrainResult:
    from cryoplug.training.average import WeightAverage
    from cryoplug.training.data.split import write_indices
    from cryoplug.training.distributed import cores_of_each
    from cryoplug.training.engine import BandEngine, choose_precision, fingerprint, open_engine
    from cryoplug.training.loop import Training
    from cryoplug.training.progress import EpochReport, Note
    from cryoplug.training.schedule import gave_up, is_done
    from cryoplug.training.steps import make_optimizer
    from cryoplug.training.weights import put_weights

    request, store, split, start = opened.request, opened.store, opened.split, opened.start
    identity, folder, device, processes = opened.identity, opened.folder, opened.device, opened.processes
    config = request.config
    spec = model_spec(config.model).configured(config.model_options)
    module = spec.build(seed=config.seed, config=config.model_options)
    if start is not None:
        put_weights(module, start.checkpoint.weights)
    threads = config.threads or cores_of_each(processes.launch)
    precision = choose_precision(config.precision, spec, device)
    with open_engine(
        module,
        spec,
        device=device,
        threads=threads,
        loss=config.loss,
        precision=precision,
        batch_size=config.batch_size,
    ) as engine:
        optimizer = make_optimizer(engine, config)
        average = None if config.ema is None else WeightAverage(module, config.ema)
        # Bands are summed in a fixed order: there, and on a GPU, the number of threads changes no bit.
        exact = isinstance(engine, BandEngine) or device.type == "cuda"
        environment = fingerprint(device, threads=None if exact else threads) | of_a_step(processes, config)
        if device.type == "cuda":
            environment["kernels"] = engine.kernels
            environment["precision"] = precision
        position, before = state_of_all(folder, processes, module, optimizer, average, environment)
        if before is not None and folder is not None and not is_done(position, config):
            where = f"epoch {position.epoch}, batch {position.batch}"
            progress(Note(f"going on from {where} of {folder.path}{bits_note(before, environment)}"))
        mixer = _mixer(config, store, split, device, progress)
        training = Training(
            config=config,
            store=store,
            split=split,
            engine=engine,
            optimizer=optimizer,
            position=position,
            checkpoint_head=_checkpoint_head(request, store, split, start, identity, mixed=mixer is not None),
            environment=environment,
            folder=folder,
            device=device,
            average=average,
            mixer=mixer,
            processes=processes,
        )
        already_finished = is_done(position, config)
        if folder is not None and already_finished:
            # A kill may have fallen between the last state and the tidying up.
            folder.write_metrics(position.history)
            folder.keep_only(position.best_epoch or 0)
            _draw_loss_curve(folder, position.history, progress)
            done = f"{position.epoch - 1} (--patience)" if gave_up(position, config) else f"all {position.epoch - 1}"
            progress(Note(f"{folder.path}: {done} epochs are done already; nothing to do"))
        elif folder is not None:
            folder.write_request(run_record(request, identity, environment, finished=False))
            folder.write_validation_indices(write_indices(split.validation))
        if not already_finished:
            training.run(lambda event: _forward(event, folder, training, progress), interrupts)
    evaluation, verdict = None, None
    if folder is not None:
        folder.write_request(run_record(request, identity, environment, finished=True))
        if request.evaluate:
            evaluation = _evaluate(
                folder.epoch_folder(position.best_epoch or 0), store, split, config, progress, interrupts
            )
            verdict = recorded_verdict(load_checkpoint(folder.epoch_folder(position.best_epoch or 0)).details)
    assert position.best_epoch is not None and position.best_loss is not None
    assert position.first_batch_loss is not None
    return TrainResult(
        epochs=tuple(EpochReport.from_record(record) for record in position.history),
        best_epoch=position.best_epoch,
        best_loss=position.best_loss,
        first_batch_loss=position.first_batch_loss,
        checkpoint=training.best_folder(),
        already_finished=already_finished,
        evaluation=evaluation,
        verdict=verdict,
        pairs=None if store.manifest is None else store.manifest.pairs,
        required=request.require_better_than,
    )


def _evaluate(
    epoch_folder: Path,
    store: PairStore,
    split: Split,
    config: TrainConfig,
    progress: Callable[[Event], None],
    interrupts: Interrupts,
) -> Summary | None:
    """Evaluate the kept checkpoint unless an earlier run did."""
    from cryoplug.training.choice import pairs_are_halves
    from cryoplug.training.progress import Note
    from cryoplug.workflows.train.evaluation import evaluate_kept, has_evaluation

    if has_evaluation(epoch_folder):
        return None
    pairs = None if store.manifest is None else store.manifest.pairs
    return evaluate_kept(
        epoch_folder,
        store,
        split.validation,
        config,
        kind="single" if pairs == "single" else "halves" if pairs_are_halves(store, config) else "truth",
        interrupts=interrupts,
        note=lambda text: progress(Note(text)),
    )


def _mixer(
    config: TrainConfig, store: PairStore, split: Split, device: Any, progress: Callable[[Event], None]
) -> Mixer | Recorruption | None:
    """Make what makes mixtures of halves, if they are asked for and possible, or of single exposures."""
    from cryoplug.training.data.balance import measure_balance
    from cryoplug.training.data.mixing import Mixer
    from cryoplug.training.progress import Note
    from cryoplug.workflows.train.single import recorruption_of

    if store.manifest is not None and store.manifest.pairs == "single":
        return recorruption_of(store, config, device, lambda text: progress(Note(text)))
    if config.mix == 1.0:
        return None
    alike = store.manifest is None or store.manifest.halves_alike
    balance = measure_balance(store, split.train, alike=alike)
    if balance is None:
        progress(
            Note("the halves are not equally noisy and share too little signal to be mixed; trained on as they are")
        )
        return None
    if not alike:
        ratio = f"{balance.noise_ratio:.3g}"
        progress(
            Note(f"at equal signal even has {ratio} times the noise variance of odd; mixtures are weighted for it")
        )
    return Mixer(config.mix, balance, seed=config.seed, device=device)


def _forward(event: Event, folder: RunFolder | None, training: Any, progress: Callable[[Event], None]) -> None:
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


def _one_output(config: TrainConfig) -> None:
    outputs = model_spec(config.model).configured(config.model_options).outputs
    if len(outputs) > 1:
        raise UsageError(
            f"--model-option outputs={len(outputs)}: the network gives {' and '.join(outputs)}, but a store has one target; "
            "give outputs=1"
        )


def _checkpoint_head(
    request: TrainRequest,
    store: PairStore,
    split: Split,
    start: Start | None,
    identity: dict[str, Any],
    *,
    mixed: bool,
) -> Checkpoint:
    from cryoplug.workflows.train import appearance

    manifest = store.manifest
    # Halves that could not be mixed were trained on as they are, and denoise matches noise accordingly.
    training = identity if mixed else {**identity, "mix": 1.0}
    details = {"data_fingerprint": identity["data"], "training": training, "software": software_versions()}
    if request.save and (seen := appearance.appearance_of_store(store, split.train)) is not None:
        details[appearance.FIELD] = seen
    if start is not None:
        details |= start.details(manifest)
    if manifest is not None:
        details["pairs"] = manifest.pairs
        if manifest.angpix is not None:
            details["angpix"] = manifest.angpix
    return Checkpoint(
        request.config.model,
        weights={},
        config=dict(request.config.model_options),
        normalize="percentile" if manifest is None else manifest.normalize,
        pixel_size_angstrom=None if manifest is None else manifest.pixel_size_angstrom,
        details=details,
    )
