"""Fixtures: a checkpoint that needs no training, and a project of the real Pipeliner, in a folder with a space in its name."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint

if TYPE_CHECKING:
    from pipeliner_project import Project

if importlib.util.find_spec("pipeliner") is None:
    raise pytest.UsageError(
        "the CCP-EM Pipeliner is not in this environment: run these tests by `make plugin-cryoplug-pipeliner`, or in an "
        "environment that plugins/cryoplug-pipeliner/install.sh made"
    )


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cryo_cnn whose three layers take means of 3x3 pixels: it smooths, and needs no training."""
    shapes = {1: (16, 1), 2: (16, 16), 3: (1, 16)}
    weights: dict[str, np.ndarray] = {}
    for number, shape in shapes.items():
        kernel = np.zeros((*shape, 3, 3), np.float32)
        kernel[0, 0] = 1 / 9
        weights[f"conv{number}.weight"] = kernel
        weights[f"conv{number}.bias"] = np.zeros(shape[0], np.float32)
    folder = tmp_path_factory.mktemp("model") / "epoch_0001"
    save_checkpoint(folder, Checkpoint("cryo_cnn", weights, normalize="percentile"), loss=0.1)
    return folder


@pytest.fixture
def project(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """An empty project, which is the working folder."""
    from pipeliner_project import Project

    folder = tmp_path / "my project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made = Project(folder, checkpoint)
    yield made
    made.end_all()
