"""``train --dry-run``: open the store, the checkpoint and the run folder, decide all settings, and write nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cryoplug.core.outlook import Expect, Outlook, unwatched
from cryoplug.core.plan import Plan, PlannedNetwork, free_space, size_text
from cryoplug.core.results import FileResult
from cryoplug.disk.claims import refuse_held
from cryoplug.errors import UsageError
from cryoplug.machine.devices import resolved_name
from cryoplug.machine.launch import torchrun_launch
from cryoplug.models.registry import model_spec
from cryoplug.reports.html import counted
from cryoplug.store.pairs import PairStore
from cryoplug.workflows.train.identity import compare_with_earlier_run
from cryoplug.workflows.train.opening import Prepared, note_oddities, prepare
from cryoplug.workflows.train.page import PAGE_NAME
from cryoplug.workflows.train.request import TrainRequest

if TYPE_CHECKING:
    from cryoplug.training.progress import Event

Note = Callable[[str], None]
_MOMENTS_OF_ADAM = 2
_FLOAT32_BYTES = 4


def rehearse(
    request: TrainRequest,
    progress: Callable[[FileResult], None] = lambda result: None,
    note: Note = lambda text: None,
    *,
    expect: Expect = unwatched,
) -> Plan:
    """Say what `cryoplug.workflows.train.train` would do now.

    It reads the manifest of the store and the sizes of its files, and no pixels.

    Parameters
    ----------
    request
        The request.
    progress
        Called with the store, if the run is already finished.
    note
        Called with remarks.
    expect
        Called with the number of stores, which is one.

    Raises
    ------
    CryoplugError
        The error with which the run would end before its first step. `UsageError` also if torchrun started several processes.
    """
    if torchrun_launch().world > 1:
        raise UsageError("--dry-run looks at one process; give the same command without torchrun")
    expect(Outlook(1))

    def note_event(event: Event) -> None:
        note(getattr(event, "text", ""))

    with contextlib.ExitStack() as stack:
        device = resolved_name(request.config.device)
        prepared = prepare(request, device, stack, note_event)
        network = _network(prepared, device)
        done = prepared.request.save and _look_at_run_folder(prepared, note_event, note)
        note_oddities(prepared, note_event)
        details = _details(prepared)
        if not done:
            _note_plan(prepared, details, note)
        return _plan(prepared, network, details, done=done, progress=progress)


def _plan(
    prepared: Prepared,
    network: PlannedNetwork,
    details: dict[str, Any],
    *,
    done: bool,
    progress: Callable[[FileResult], None],
) -> Plan:
    request, data = prepared.request, prepared.request.data
    files: tuple[FileResult, ...] = ()
    if done:
        files = (FileResult(data, "skipped", request.run_folder, "finished by an earlier run"),)
        progress(files[0])
    saved: dict[str, Any] = {}
    if request.save:
        saved = {
            "output": request.run_folder,
            "writes": ("epoch_NNNN", "run.json", "metrics.jsonl", "resume", *([PAGE_NAME] if request.evaluate else [])),
            "needed_bytes": 0 if done else _needed_bytes(prepared, network),
            # A file in the place of the folder is in the way of what is within.
            "free_bytes": free_space(request.run_folder / "run.json"),
        }
    return Plan(files, details=details, to_do=() if done else (data,), network=network, **saved)


def _network(prepared: Prepared, device: str) -> PlannedNetwork:
    config = prepared.request.config
    spec = model_spec(config.model).configured(config.model_options)
    if device != "cpu" or config.precision == "bf16":
        import torch

        from cryoplug.training.engine import choose_precision

        choose_precision(config.precision, spec, torch.device(device))
    start = prepared.start
    return PlannedNetwork(config.model, spec.parameters if start is None else start.checkpoint.parameters, device)


def _look_at_run_folder(prepared: Prepared, note_event: Callable[[Event], None], note: Note) -> bool:
    """Compare with an earlier run, say what would happen to it, and return whether it is finished."""
    from cryoplug.training.run_folder import RunFiles

    folder = RunFiles(prepared.request.run_folder)
    refuse_held(folder.lock_path, str(folder.path))
    if compare_with_earlier_run(folder, prepared.request, prepared.identity, note_event):
        note(f"would start again, and forget the run in {folder.path}")
        return False
    earlier = folder.read_request()
    if earlier is None:
        return False
    epochs = earlier["config"].get("epochs")
    more = isinstance(epochs, int) and prepared.request.config.epochs > epochs
    if earlier.get("status") == "finished" and not more:
        return True
    note(f"would go on with the run in {folder.path}")
    return False


def _details(prepared: Prepared) -> dict[str, Any]:
    """Give facts on what the run would read and do, for the record."""
    config, store, split = prepared.request.config, prepared.store, prepared.split
    pairs = config.crops_per_epoch or len(split.train)
    steps = -(-pairs // config.batch_size)
    if config.max_batches is not None:
        steps = min(steps, config.max_batches)
    return {
        "train_pairs": len(split.train),
        "validation_pairs": len(split.validation),
        "patch_size": store.patch_shape[0],
        "micrographs": _count_micrographs(store),
        "read_bytes": sum(os.stat(path).st_size for path in store.files),
        "batch_size": config.batch_size,
        "steps_per_epoch": steps,
        "epochs": config.epochs if config.minutes is None else None,
        "minutes": config.minutes,
    }


def _count_micrographs(store: PairStore) -> int | None:
    """Count the micrographs of the pairs; None for bare bins, where it is not known."""
    return None if store.manifest is None else sum(entry.split == "train" for entry in store.manifest.micrographs)


def _note_plan(prepared: Prepared, details: dict[str, Any], note: Note) -> None:
    micrographs = "" if details["micrographs"] is None else f", of {counted(details['micrographs'], 'micrograph')}"
    note(
        f"would read {prepared.store.path} ({size_text(details['read_bytes'])}): {details['train_pairs']} pairs of "
        f"{details['patch_size']} px to train on, {details['validation_pairs']} to validate on{micrographs}"
    )
    step = f"{details['steps_per_epoch']} steps, {details['batch_size']} pairs each"
    long = f"--epochs {details['epochs']}" if details["epochs"] is not None else f"--minutes {details['minutes']:g}"
    note(f"would train by {long}; an epoch has {step}")


def _needed_bytes(prepared: Prepared, network: PlannedNetwork) -> int | None:
    """Give the bytes of the run folder: checkpoint and state, each twice while a new one replaces the old one."""
    if network.parameters is None:
        return None
    config = prepared.request.config
    as_bins = bool(model_spec(config.model).configured(config.model_options).layers)
    copies = (1 + as_bins) + (1 + _MOMENTS_OF_ADAM + (config.ema is not None))
    return 2 * copies * _FLOAT32_BYTES * network.parameters
