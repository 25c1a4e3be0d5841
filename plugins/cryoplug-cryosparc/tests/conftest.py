"""Fixtures: a project of cryoSPARC with micrographs, a server that speaks as the installed cryosparc-tools expects, and us."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["CRYOSPARC_COMMAND_RETRY_SECONDS"] = "0"  # read when cryosparc-tools 4 is imported
try:
    import cryosparc  # noqa: F401
except ImportError as error:
    raise pytest.UsageError(
        "cryosparc-tools is not installed here; make the environment with plugins/cryoplug-cryosparc/install.sh VENV"
    ) from error
from cryosparc_project import CryosparcProject


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CryosparcProject]:
    """A project with four micrographs in ``J1``, and its server."""
    for name in [name for name in os.environ if name.startswith(("CRYOSPARC_", "CRYOPLUG_"))]:
        monkeypatch.delenv(name)
    project = CryosparcProject(tmp_path)
    for name, value in project.environment.items():
        monkeypatch.setenv(name, value)
    yield project
    project.close()
