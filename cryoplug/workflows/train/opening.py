"""Open the store (only once) and the run folder of a training, and refuse what cannot be done."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryoplug.errors import UsageError
from cryoplug.models.registry import model_spec
from cryoplug.store.grey_scale import remark_on_store
from cryoplug.store.pairs import PairStore, open_store
from cryoplug.workflows.train.identity import compare_with_earlier_run, run_identity
from cryoplug.workflows.train.request import TrainRequest
from cryoplug.workflows.train.start import Start, check_store, started

if TYPE_CHECKING:
    import torch

    from cryoplug.training.config import TrainConfig
    from cryoplug.training.data.split import Split
    from cryoplug.training.distributed import Processes
    from cryoplug.training.progress import Event
    from cryoplug.training.run_folder import RunFolder


@dataclass(frozen=True)
class Prepared:
    """The checked parts of a run, before anything is written."""

    request: TrainRequest
    """The request, completed by the recipe."""
    store: PairStore
    """The training pairs."""
    split: Split
    """Which pairs train and which validate."""
    start: Start | None
    """The checkpoint from which training starts; None for random weights."""
    identity: dict[str, Any]
    """Everything that decides the weights, from `run_identity`."""


@dataclass(frozen=True)
class Opened(Prepared):
    """The checked parts of a run, its folder, device and processes."""

    folder: RunFolder | None
    """The run folder; None if nothing is saved, or if another process of this run holds it."""
    device: torch.device
    """Where this process computes."""
    processes: Processes
    """The processes that train together."""


def open_run(
    request: TrainRequest,
    processes: Processes,
    device: torch.device,
    stack: contextlib.ExitStack,
    progress: Callable[[Event], None],
) -> Opened:
    """Open the store and the run folder, and refuse what cannot be done; both close with the stack."""
    prepared = prepare(request, str(device), stack, progress)
    request, folder = prepared.request, None
    if request.save:
        from cryoplug.training.run_folder import RunFolder

        folder = stack.enter_context(RunFolder(request.run_folder))
        if compare_with_earlier_run(folder, request, prepared.identity, progress, processes=processes.world):
            folder.forget()
    note_oddities(prepared, progress)
    return Opened(**vars(prepared), folder=folder, device=device, processes=processes)


def prepare(
    request: TrainRequest, device: str, stack: contextlib.ExitStack, progress: Callable[[Event], None]
) -> Prepared:
    """Open the store, complete the request and split the pairs, and refuse what cannot be done.

    Parameters
    ----------
    request
        As the user gave it.
    device
        ``cpu`` or ``cuda:N``.
    stack
        The store closes with it.
    progress
        Called with notes.
    """
    from cryoplug.training.data.split import split_patches
    from cryoplug.training.progress import Note

    request, start = started(request)
    _one_output(request.config)
    on_gpu = device.startswith("cuda")
    if request.config.cache == "gpu" and not on_gpu:
        raise UsageError(f"--cache gpu, but training runs on {device}; give --cache auto, or --device cuda")
    asked = request.config
    store = stack.enter_context(open_store(request.data, patch_size=asked.patch_size, crop_size=asked.crop_size))
    config = _completed(request, store, on_gpu=on_gpu, goes_on=start is not None)
    if config.crop_size is not None and config.crop_size != asked.crop_size:
        store.cut_anew(config.crop_size)
    request = dataclasses.replace(request, config=config)
    if config.augment == "halves" and store.manifest is not None and store.manifest.pairs != "halves":
        raise UsageError(
            f"{store.path}: a store of --pairs {store.manifest.pairs}; its sides must not be exchanged; "
            "give --augment dihedral, or convert --pairs halves"
        )
    if config.crops_per_epoch is not None and not store.whole:
        raise UsageError(f"{store.path}: a store of patches; --crops-per-epoch needs one of convert --store whole")
    split = split_patches(store, fraction=config.val_split, seed=config.seed, val_indices=request.val_indices)
    if start is not None:
        check_store(start, store.manifest)
        progress(Note(start.note))
    return Prepared(
        request, store, split, start, run_identity(request, store, split, None if start is None else start.sha256)
    )


def note_oddities(prepared: Prepared, progress: Callable[[Event], None]) -> None:
    """Print remarks on the run: that nothing is saved, how pairs are split, and what is odd about them."""
    from cryoplug.training.progress import Note

    unsaved = "" if prepared.request.save else "nothing will be saved; give --save to keep the best checkpoint"
    for text in filter(None, (unsaved, prepared.split.note, remark_on_store(prepared.store))):
        progress(Note(text))


def _completed(request: TrainRequest, store: PairStore, *, on_gpu: bool, goes_on: bool) -> TrainConfig:
    """Fill in the settings that the user did not choose, by the recipe that suits the store."""
    from cryoplug.training.presets import with_recipe

    manifest = store.manifest
    whole = [store.image_shape(image) for image in range(store.images())] if store.whole else []
    return with_recipe(
        request.config,
        request.recipe,
        pairs=None if manifest is None else manifest.pairs,
        patch_shape=store.patch_shape,
        whole=(min(y for y, _ in whole), min(x for _, x in whole)) if whole else None,
        on_gpu=on_gpu,
        given=request.given | ({"model_options"} if goes_on else set()),
        goes_on=goes_on,
    )


def _one_output(config: TrainConfig) -> None:
    outputs = model_spec(config.model).configured(config.model_options).outputs
    if len(outputs) > 1:
        raise UsageError(
            f"--model-option outputs={len(outputs)}: the network gives {' and '.join(outputs)}, but a store has one target; "
            "give outputs=1"
        )
