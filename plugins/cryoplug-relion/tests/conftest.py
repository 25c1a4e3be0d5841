"""Fixtures: a checkpoint that needs no training, a project, and RELION itself where it is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from relion_project import Project


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
def project(tmp_path: Path, checkpoint: Path) -> Project:
    """An empty project."""
    return Project(tmp_path, checkpoint)


@pytest.fixture
def relion_project(project: Project) -> Project:
    """An empty project of RELION; skips where RELION is not installed."""
    if shutil.which("relion_pipeliner") is None:
        pytest.skip("RELION is not installed (on Debian: apt-get install relion)")
    text = "\n# version 30001\n\ndata_pipeline_general\n\n_rlnPipeLineJobCounter 1\n\n"
    (project / "default_pipeline.star").write_text(text)
    return project
