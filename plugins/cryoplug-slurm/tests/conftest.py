"""One Slurm for all tests of this plugin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_here import Cluster, why_not


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    reason = why_not()
    if reason:
        pytest.skip(f"no Slurm: {reason}")
    started = Cluster(tmp_path_factory.mktemp("slurm"))
    yield started
    started.close()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> Path:
    folder = tmp_path / "a project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    return folder
