"""What the tests of ``train`` share."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.train.made_runs import pairs, write_bins


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_bins(tmp_path / "data", *pairs())
