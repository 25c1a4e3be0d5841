"""Small stores and runs that the tests of ``train`` share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.training.config import TrainConfig
from cryoplug.training.progress import Event
from cryoplug.workflows.train import TrainRequest, TrainResult, train

SIDE, COUNT = 24, 13
CONFIG = TrainConfig(epochs=3, lr=0.01, batch_size=4, patch_size=SIDE, val_split=0.25, device="cpu", threads=2)


def pairs(count: int = COUNT, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = np.clip(0.5 + 0.05 * np.cumsum(rng.standard_normal((count, side, side)), axis=2), 0, 1).astype("<f4")
    return (clean + 0.1 * rng.standard_normal(clean.shape)).astype("<f4"), clean


def write_bins(folder: Path, noisy: np.ndarray, clean: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    noisy.tofile(folder / "noisy_train.bin")
    clean.tofile(folder / "clean_train.bin")
    return folder


def run(data: Path, out: Path | None = None, *, events: list[Event] | None = None, **changes: Any) -> TrainResult:
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    config = dataclasses.replace(CONFIG, **{key: value for key, value in changes.items() if key in fields})
    others = {key: value for key, value in changes.items() if key not in fields}
    request = TrainRequest(data, config, save=out is not None, checkpoint_dir=out or Path("unused"), **others)
    return train(request, (events if events is not None else []).append)


def digest(folder: Path) -> str:
    return load_checkpoint(folder).sha256


def final_state(folder: Path) -> bytes:
    return (folder / "cryo_cnn" / "resume" / "state.safetensors").read_bytes()[-31000:]
