"""A working folder with a tiny general model, for the tests of the verbs."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def here(general_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path
