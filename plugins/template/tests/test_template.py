"""The laws that cryoplug asks of every command, model and format, for those of this plugin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cryoplug.testing import CommandContract, FormatContract, ModelContract

from cryoplug_template.model import ONE_CONV
from cryoplug_template.npy_format import NPY


class TestNpy(FormatContract):
    spec = NPY

    def write(self, path: Path, pixels: np.ndarray) -> None:
        np.save(path, pixels)


class TestOneConv(ModelContract):
    spec = ONE_CONV


class TestBrightness(CommandContract):
    command = "brightness"

    def arguments(self, folder: Path) -> list[object]:
        np.save(folder / "a.npy", np.full((3, 4), 2.5))
        return [folder / "a.npy"]

    def missing_input(self, folder: Path) -> list[object]:
        return [folder / "no_such_file.npy"]
