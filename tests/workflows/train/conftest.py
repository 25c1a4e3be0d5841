"""What the tests of ``train`` share."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryoplug.workflows.train import workflow
from workflows.train.made_runs import pairs, write_bins


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_bins(tmp_path / "data", *pairs())


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than these runs; one test draws."""
    monkeypatch.setattr(workflow, "_draw_loss_curve", lambda *_: None)
