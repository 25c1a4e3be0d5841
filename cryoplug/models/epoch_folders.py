"""Find the folder of a run that holds the weights: names of files, epochs and their losses."""

from __future__ import annotations

import re
from pathlib import Path

from cryoplug.disk.atomic import storage_errors
from cryoplug.disk.checked_input import read_limited
from cryoplug.errors import FormatError, InputError, MissingInputError, StorageError

JSON_NAME = "checkpoint.json"
SAFETENSORS_NAME = "model.safetensors"
LOSS_NAME = "loss.txt"
EPOCH_FOLDER = re.compile(r"epoch_(\d{4,})")
BIN_NAME = re.compile(r"(conv\d+)_(weights|bias)\.bin")
"""Name of a tensor's file in a founding checkpoint."""
_MAX_LOSS_BYTES = 4096
_PICKLES = (".pt", ".pth", ".pkl", ".ckpt", ".pickle", ".npz", ".npy", ".joblib", ".tar")


def find_epoch_folder(path: Path) -> Path:
    """Return the folder that holds the weights: `path` itself, or the best epoch below it."""
    if path.is_file():
        if path.name in (SAFETENSORS_NAME, JSON_NAME, LOSS_NAME) or BIN_NAME.fullmatch(path.name):
            return path.parent
        reason = "pickles can run code and are not loaded" if path.suffix in _PICKLES else "not a checkpoint folder"
        raise FormatError(f"{path}: {reason}; give a run folder, an epoch_NNNN folder or a folder of conv*_weights.bin")
    if not path.is_dir():
        raise MissingInputError(f"{path}: no such folder; give a run folder or an epoch_NNNN folder")
    if _holds_weights(path):
        return path
    best = best_epoch(path)
    if best is not None:
        return best
    runs = [(item, epoch) for item in _folders(path) if (epoch := best_epoch(item)) is not None]
    if len(runs) == 1:
        return runs[0][1]
    if runs:
        names = ", ".join(item.name for item, _ in runs)
        raise FormatError(f"{path}: holds {len(runs)} runs ({names}); name one of them")
    raise FormatError(
        f"{path}: no checkpoint in it; give a folder with {SAFETENSORS_NAME}, conv*_weights.bin or epoch_NNNN folders"
    )


def best_epoch(run_folder: Path) -> Path | None:
    """Return the ``epoch_NNNN`` folder with the lowest loss (on a tie the later one), or None if there is none."""
    epochs = [item for item in _folders(run_folder) if EPOCH_FOLDER.fullmatch(item.name) and _holds_weights(item)]
    if not epochs:
        return None
    return min(epochs, key=lambda item: (_loss_of(item), -epoch_number(item)))


def epoch_number(folder: Path) -> int:
    """Return N of ``epoch_N``."""
    match = EPOCH_FOLDER.fullmatch(folder.name)
    return int(match.group(1)) if match else 0


def read_loss(folder: Path) -> float | None:
    """Return the loss in ``loss.txt``, or None if the file is missing or holds no number."""
    try:
        return float(read_limited(folder / LOSS_NAME, _MAX_LOSS_BYTES).split()[0])
    except (InputError, StorageError, ValueError, IndexError):
        return None


def _loss_of(folder: Path) -> float:
    loss = read_loss(folder)
    return float("inf") if loss is None or loss != loss else loss


def _folders(path: Path) -> list[Path]:
    with storage_errors(path):
        return sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith("."))


def _holds_weights(folder: Path) -> bool:
    with storage_errors(folder):
        names = {item.name for item in folder.iterdir()}
    return bool(names & {SAFETENSORS_NAME, JSON_NAME}) or any(BIN_NAME.fullmatch(name) for name in names)
