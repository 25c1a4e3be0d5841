"""A project folder with micrographs, the server that knows it, and the command, in this process or in another one."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cryosparc
import numpy as np
from cryoplug.cli.main import run
from cryoplug.formats.mrc_writer import write_mrc
from cryosparc.dataset import Dataset
from fake_cryosparc import FakeCryosparc, FakeOutput

if cryosparc.__version__.startswith("4."):
    from wire4 import Wire
else:
    from wire5 import Wire

PIXEL_SIZE = 2.6
SIDE = 96
COMMAND = ("cryosparc", "denoise", "--project", "P1", "--workspace", "W1", "--exposures", "J1")


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The one sentence that begins with the command's name."""
        lines = [line for line in self.stderr.splitlines() if ": error: " in line]
        assert len(lines) == 1, self.stderr
        return lines[0]


class CryosparcProject:
    """See the module."""

    major = int(cryosparc.__version__.split(".")[0])

    def __init__(self, root: Path, *, name: str = "CS-my project", count: int = 4) -> None:
        self.folder = root / name
        self.folder.mkdir()
        self.server = FakeCryosparc(self.folder)
        self.wire: Any = Wire(self.server)
        self.home = root / "home"
        self.environment = {"CRYOSPARC_BASE_URL": self.wire.url, **self.wire.environment(self.home)}
        self.raw = [f"J1/motioncorrected/{number:021d}_mic {number}_doseweighted.mrc" for number in range(1, count + 1)]
        (self.folder / "J1" / "motioncorrected").mkdir(parents=True)
        random = np.random.default_rng(1)
        for path in self.raw:
            write_mrc(self.folder / path, micrograph(random), pixel_size_angstrom=PIXEL_SIZE)
        self.server.add_source("J1", {"micrographs": exposures(self.raw)})

    def run(self, *words: str, command: tuple[str, ...] = COMMAND) -> Outcome:
        """Run the command here."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run([*command, "--device", "cpu", "--threads", "1", *words])
        return Outcome(code, out.getvalue(), err.getvalue())

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command in a process of its own."""
        command = [sys.executable, "-m", "cryoplug", *COMMAND, "--device", "cpu", "--threads", "1"]
        nowhere = subprocess.DEVNULL
        return subprocess.Popen(command, stdout=nowhere, stderr=nowhere, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def close(self) -> None:
        """End the server, and what it holds back."""
        self.server.release_all()
        with contextlib.suppress(OSError):
            self.wire.close()


def micrograph(random: np.random.Generator) -> np.ndarray:
    """Make an image with dark discs in noise."""
    y, x = np.mgrid[:SIDE, :SIDE]
    image = random.normal(100, 10, (SIDE, SIDE))
    for cy, cx in random.integers(15, SIDE - 15, (3, 2)):
        image -= 8 * (((y - cy) ** 2 + (x - cx) ** 2) < 9**2)
    return image.astype(np.float32)


def exposures(paths: list[str], *, with_micrographs: bool = True) -> FakeOutput:
    """Make the output of a motion correction job; paths from the project."""
    count = len(paths)
    columns: dict[str, Any] = {"uid": np.arange(count, dtype=np.uint64) + np.uint64(9_000_000_000_000_000_000)}
    columns |= {"ctf/df1_A": np.full(count, 12000, np.float32), "ctf/df2_A": np.full(count, 11000, np.float32)}
    slots = {"ctf": "ctf"}
    if with_micrographs:
        slots["micrograph_blob"] = "micrograph_blob"
        columns |= {
            "micrograph_blob/path": np.array(paths, object),
            "micrograph_blob/idx": np.zeros(count, np.uint32),
            "micrograph_blob/shape": np.full((count, 2), SIDE, np.uint32),
            "micrograph_blob/psize_A": np.full(count, PIXEL_SIZE, np.float32),
            "micrograph_blob/format": np.array(["MRC/1"] * count, object),
            "micrograph_blob/is_background_subtracted": np.ones(count, np.uint32),
            "micrograph_blob/vmin": np.zeros(count, np.float32),
            "micrograph_blob/vmax": np.full(count, 200, np.float32),
            "micrograph_blob/import_sig": np.arange(count, dtype=np.uint64) + np.uint64(77),
        }
    return FakeOutput("exposure", slots, dataset=Dataset(columns))
