"""One Slurm for all tests of this plugin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_here import Cluster, why_not


@pytest.fixture(scope="session")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    reason = why_not()
    if reason:
        pytest.skip(f"no Slurm: {reason}")
    started = Cluster(tmp_path_factory.mktemp("slurm"))
    yield started
    started.close()


@pytest.fixture
def cluster(running_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Give a Slurm with two idle nodes, and let its programs find it."""
    monkeypatch.setenv("SLURM_CONF", str(running_cluster.conf))
    running_cluster.wait_until_idle()
    return running_cluster


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
