"""Which training run a folder holds, and whether the requested run is the same."""

from __future__ import annotations

import contextlib
import hashlib
import platform
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from cryoplug.errors import UsageError
from cryoplug.store.pairs import PairStore

if TYPE_CHECKING:
    from cryoplug.training.data.split import Split
    from cryoplug.training.progress import Event
    from cryoplug.training.run_folder import RunFiles
    from cryoplug.workflows.train.request import TrainRequest

_SAMPLED_PATCHES = 8
PROCESSES, PATCHES_A_STEP = "processes", "patches_a_step"
"""Names in the environment of a state: the number of processes, and the patches of a step in all of them."""


def compare_with_earlier_run(
    folder: RunFiles,
    request: TrainRequest,
    identity: dict[str, Any],
    progress: Callable[[Event], None],
    *,
    processes: int = 1,
) -> bool:
    """Refuse to go on with a run that has other settings, and return whether the earlier run must be deleted.

    Half the processes with twice the ``--batch-size`` take the same steps. `processes` is their number now.
    """
    from cryoplug.training.config import TrainConfig, differing_fields
    from cryoplug.training.progress import Note

    if request.overwrite:
        return True
    earlier = folder.read_request()
    if earlier is None:
        if folder.epochs():
            raise UsageError(
                f"{folder.path}: holds {folder.epochs()[0].name} but no run.json, so it is not known what made it; "
                "give --overwrite to replace it, or another --checkpoint-dir"
            )
        if request.resume:
            progress(Note(f"{folder.path}: no run to go on with yet; starting at the beginning"))
        return folder.read_state() is not None
    before = TrainConfig.completed(earlier["config"])
    if _patches_a_step(before, earlier.get("environment")) == request.config.batch_size * processes:
        before["batch_size"] = request.config.batch_size
    epochs_before = before.get("epochs")
    more = request.resume and isinstance(epochs_before, int) and request.config.epochs > epochs_before
    differing = differing_fields({**before, "epochs": request.config.epochs} if more else before, identity)
    if differing:
        advice = "give the same values, --overwrite to start again, or another --checkpoint-dir"
        if isinstance(epochs_before, int) and request.config.epochs > epochs_before and not request.resume:
            advice = "--resume to go on for more epochs, " + advice
        raise UsageError(f"{folder.path}: holds a run of another configuration ({'; '.join(differing)}); {advice}")
    if earlier.get("status") == "finished" and folder.read_state() is None:
        raise UsageError(
            f"{folder.state_path}: missing, so this finished run cannot be checked or gone on with; restore it, "
            "give --overwrite to start again, or another --checkpoint-dir"
        )
    return False


def _patches_a_step(config: dict[str, Any], environment: Any) -> int | None:
    known = environment.get(PATCHES_A_STEP) if isinstance(environment, dict) else None
    return known if isinstance(known, int) else config.get("batch_size")


def run_identity(request: TrainRequest, store: PairStore, split: Split, init_sha256: str | None) -> dict[str, Any]:
    """Return everything that decides the weights: configuration, first weights, data and split.

    Parameters
    ----------
    request, store, split
        Request, store and split of the run.
    init_sha256
        Hash of the checkpoint from which it starts; None for random weights.
    """
    return {
        **request.config.identity(),
        "init": init_sha256,
        "data": _data_fingerprint(store),
        "validation": hashlib.sha256(split.validation.astype("<i8").tobytes()).hexdigest(),
    }


def _data_fingerprint(store: PairStore) -> str:
    """Return the manifest's fingerprint; for bare bins, that of their shape, count and a few patches."""
    if store.manifest is not None:
        return store.manifest.fingerprint()
    count = store.count("train")
    digest = hashlib.sha256(f"{count} {store.patch_shape} {store.dtype}".encode())
    noisy, clean = (np.empty((1, *store.patch_shape), np.float32) for _ in range(2))
    for index in np.unique(np.linspace(0, count - 1, _SAMPLED_PATCHES).round().astype(int)):
        store.read([int(index)], noisy, clean)
        digest.update(noisy.data)
        digest.update(clean.data)
    return digest.hexdigest()


def run_record(
    request: TrainRequest, identity: dict[str, Any], environment: dict[str, Any], *, finished: bool
) -> dict[str, Any]:
    """Return the contents of ``run.json``."""
    return {
        "status": "finished" if finished else "running",
        "data_path": str(request.data.absolute()),
        "config": identity,
        "environment": environment,
        "software": software_versions(),
    }


def software_versions() -> dict[str, str]:
    """Return the versions of the software that makes a checkpoint."""
    versions = {"python": platform.python_version()}
    for name in ("cryoplug", "torch", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def bits_note(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Say why a run that goes on is not bit-identical to an uninterrupted one; empty if it is."""
    from cryoplug.training.config import differing_fields

    alone = {PROCESSES: 1, PATCHES_A_STEP: now.get(PATCHES_A_STEP)}  # what older versions did not write
    differing = differing_fields({**alone, **before}, now)
    return f"; not bit-identical to an uninterrupted run: {', '.join(differing)}" if differing else ""
