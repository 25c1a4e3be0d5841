"""A project of RELION as the tests need it: micrographs, lists, jobs, and what RELION says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.star import read_star

SCRIPTS = sysconfig.get_path("scripts")
CRYOPLUG = str(Path(SCRIPTS) / "cryoplug")
ENDS = ("RELION_JOB_EXIT_SUCCESS", "RELION_JOB_EXIT_FAILURE", "RELION_JOB_EXIT_ABORTED")
OPTICS_30001 = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
_rlnMicrographOriginalPixelSize #4
_rlnVoltage #5
_rlnSphericalAberration #6
_rlnAmplitudeContrast #7
opticsGroup1 1 2.5 2.5 300.0 2.7 0.1
"""
HEADS = {
    "3.1": "# version 30001\n\ndata_job\n\n_rlnJobType 99\n_rlnJobIsContinue 0\n",
    "4": "# version 30001\n\ndata_job\n\n_rlnJobTypeLabel relion.external\n_rlnJobIsContinue 0\n",
    "5": "# version 50001\n\ndata_job\n\n_rlnJobTypeLabel relion.external\n_rlnJobIsContinue 0\n",
}


def shared_folder(name: str) -> Path:
    """Real files that are in no repository; skips where they are not."""
    named = os.environ.get("CRYOPLUG_SHARED")
    root = Path(named) if named else Path(__file__).resolve().parents[4] / "shared"
    if not (root / "data" / name).is_dir():
        pytest.skip(f"no shared data: set CRYOPLUG_SHARED to the folder that holds data/{name}")
    return root / "data" / name


def make_micrograph(path: Path, *, seed: int, side: int = 160, noise_seed: int = 0) -> None:
    """Write dark discs in noise, 2.5 angstrom a pixel."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    image = np.zeros((side, side), np.float32)
    for cy, cx in random.uniform(20, side - 20, (6 + side // 64, 2)):
        image -= 2.5 * (np.hypot(y - cy, x - cx) < 10)
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([seed, noise_seed]).normal(50, 1.5, image.shape).astype(np.float32)
    write_mrc(path, image + noise, pixel_size_angstrom=2.5)


def make_movie(path: Path, *, seed: int, frames: int = 6, side: int = 128) -> None:
    """Write a stack of counted frames of bright discs, 2.5 angstrom a pixel."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    signal = sum((np.hypot(y - cy, x - cx) < 12) * 4.0 for cy, cx in random.uniform(20, side - 20, (6, 2)))
    pixels = random.poisson(3 + signal, (frames, side, side)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mrc(path, pixels.reshape(-1, side), pixel_size_angstrom=2.5)
    # The writer makes single images: the header is changed to as many sections as there are frames.
    raw = bytearray(path.read_bytes())
    raw[4:12] = np.array([side, frames], "<i4").tobytes()
    raw[32:40] = np.array([side, 1], "<i4").tobytes()
    path.write_bytes(raw)


def star_text(names: list[str], *, columns: dict[str, list[str]] | None = None) -> str:
    """Write a list of micrographs as RELION 3.1 does."""
    more = columns or {}
    head = ["rlnMicrographName", "rlnOpticsGroup", *more]
    rows = [" ".join([name, "1", *(values[i] for values in more.values())]) for i, name in enumerate(names)]
    loop = "\n".join(f"_{name} #{number}" for number, name in enumerate(head, start=1))
    return f"{OPTICS_30001}\n# version 30001\n\ndata_micrographs\n\nloop_\n{loop}\n" + "\n".join(rows) + "\n"


@dataclass
class Project:
    """A folder that RELION calls a project; commands run in it."""

    folder: Path
    checkpoint: Path

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    @property
    def environment(self) -> dict[str, str]:
        """What a user has who activated the environment of cryoplug."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CRYOPLUG_")}
        return {**kept, "PATH": f"{SCRIPTS}{os.pathsep}{kept['PATH']}"}

    def micrographs(self, *numbers: int, folder: str = "MotionCorr/job002/Movies", side: int = 160) -> list[str]:
        """Make micrographs; give their names."""
        names = [f"{folder}/mic_{number:03d}.mrc" for number in numbers]
        for number, name in zip(numbers, names, strict=True):
            make_micrograph(self / name, seed=number, side=side)
        return names

    def halves(
        self, numbers: list[int], names: list[str], *, sides: tuple[str, str] = ("_EVN", "_ODD")
    ) -> list[list[str]]:
        """Make the two halves of each micrograph beside it; give the names of both sides."""
        made = [[name.replace(".mrc", f"{side}.mrc") for name in names] for side in sides]
        for noise_seed, side in enumerate(made, start=1):
            for number, name in zip(numbers, side, strict=True):
                make_micrograph(self / name, seed=number, noise_seed=noise_seed)
        return made

    def star(self, names: list[str], path: str = "CtfFind/job003/micrographs_ctf.star", **fields: object) -> str:
        """Write a list of micrographs; give its name."""
        (self / path).parent.mkdir(parents=True, exist_ok=True)
        (self / path).write_text(star_text(names, **fields))  # type: ignore[arg-type]
        return path

    def job(self, name: str = "External/job004/", *, release: str = "3.1") -> str:
        """Make the folder of a job as RELION leaves it to the program."""
        (self / name).mkdir(parents=True)
        (self / name / "job.star").write_text(HEADS[release])
        return name

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``cryoplug relion ...``."""
        return subprocess.Popen(
            [CRYOPLUG, "relion", *arguments],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # What runs the tests may ignore it, as nohup does, and its children then do, too.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``cryoplug relion ...`` to its end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def denoise(self, job: str, star: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Run a denoise job as RELION does."""
        return self.run(
            "denoise", "--o", job, "--in_mics", star, "--checkpoint", str(self.checkpoint), "--j", "1", *more
        )

    def ends(self, job: str) -> list[str]:
        """Give the markers of a job."""
        return [name for name in ENDS if (self / job / name).exists()]

    def relion(self, *command: str, check: bool = True, timeout_s: float = 180) -> str:
        """Run a program of RELION; give what it says."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def pipeline(self, block: str) -> list[dict[str, str]]:
        """Read a table of default_pipeline.star."""
        found = read_star(self / "default_pipeline.star").block(f"pipeline_{block}")
        return [] if found is None else [dict(zip(found.columns, row, strict=True)) for row in found.rows]


assert Path(CRYOPLUG).is_file(), f"{CRYOPLUG}: install the plugin into the environment of {sys.executable}"
