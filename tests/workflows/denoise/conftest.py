"""Checkpoints and a working folder that the tests of ``denoise`` share."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from workflows.denoise.denoising import weights_of


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    for seed in (1, 2):
        checkpoint = Checkpoint("cryo_cnn", weights_of(seed), normalize="zscore")
        save_checkpoint(folder / f"run{seed}" / "epoch_0001", checkpoint, 0.5)
    return folder / "run1", folder / "run2"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path
