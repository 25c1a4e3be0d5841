"""The commands keep the laws that cryoplug's own commands keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from cryoplug.testing import CommandContract
from cryoplug.testing.command import MISSING
from relion_project import Project


class JobContract(CommandContract):
    """Laws of a job; they run in a project of their own."""

    more: Sequence[str] = ()

    @pytest.fixture(autouse=True)
    def in_a_project(self, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        self.checkpoint = checkpoint

    def arguments(self, folder: Path) -> Sequence[object]:
        project = Project(Path.cwd(), self.checkpoint)
        names = project.micrographs(1, 2)
        project.halves([1, 2], names)
        return ["--o", folder / "External/job004", "--in_mics", project.star(names), "--j", "1", *self.options]

    def missing_input(self, folder: Path) -> Sequence[object]:
        return ["--o", folder / "External/job004", "--in_mics", f"{MISSING}.star", *self.options]

    @property
    def options(self) -> Sequence[object]:
        return self.more


class TestDenoise(JobContract):
    command = "relion denoise"

    @property
    def options(self) -> Sequence[object]:
        return ["--checkpoint", self.checkpoint]


class TestConvert(JobContract):
    command = "relion convert"
    more = ("--patch-size", "64", "--stride", "48")


@pytest.mark.slow
class TestTrain(JobContract):
    command = "relion train"
    more = ("--patch-size", "64", "--stride", "48", "--epochs", "1", "--batch-size", "2")


class TestShare(CommandContract):
    command = "relion share"

    def arguments(self, folder: Path) -> Sequence[object]:
        return []

    def missing_input(self, folder: Path) -> Sequence[object] | None:
        return None
