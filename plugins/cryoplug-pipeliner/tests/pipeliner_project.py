"""A project of the CCP-EM Pipeliner as the tests need it: micrographs, jobs, and the processes of a job."""

from __future__ import annotations

import os
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.star import read_star
from pipeliner.api.manage_project import PipelinerProject
from pipeliner.pipeliner_job import PipelinerJob
from pipeliner.project_graph import ProjectGraph

SCRIPTS = sysconfig.get_path("scripts")
PIPELINER = str(Path(SCRIPTS) / "pipeliner")
PATIENCE_S = 120.0
DENOISE, TRAIN, EVALUATE = "cryoplug.denoise.micrographs", "cryoplug.denoise.train", "cryoplug.denoise.evaluate"
_HEAD = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
opticsGroup1 1 2.5 300.0 2.7 0.1

# version 30001

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Look again and again until something is true."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


class Project:
    """A project whose folder is the working folder; jobs run in processes of their own, as in Doppio."""

    star = "CtfFind/job001/micrographs_ctf.star"

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.folder, self.checkpoint = folder, checkpoint
        self.api = PipelinerProject(make_new_project=True)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def micrographs(self, *numbers: int, side: int = 160, folder: str = "MotionCorr/job001/Movies") -> list[str]:
        """Write noise; give the names."""
        names = [f"{folder}/mic {number}.mrc" for number in numbers]
        for number, name in zip(numbers, names, strict=True):
            (self / name).parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).normal(50, 1.5, (side, side)).astype(np.float32)
            write_mrc(self / name, pixels, pixel_size_angstrom=2.5)
        return names

    def list(self, names: list[str]) -> None:
        """Write the STAR file of micrographs, as a CtfFind job does."""
        (self / self.star).parent.mkdir(parents=True, exist_ok=True)
        rows = [f"{name!r} 1 {10000 + number}.5" for number, name in enumerate(names)]
        (self / self.star).write_text(_HEAD + "\n".join(rows) + "\n")

    def denoise(self, **values: object) -> PipelinerJob:
        """Start a denoise job with the small checkpoint."""
        common = {"_rlnJobTypeLabel": DENOISE, "in_mics": self.star, "checkpoint": str(self.checkpoint)}
        return self.api.run_job({**common, **values})

    def go_on(self, job: PipelinerJob, **values: object) -> PipelinerJob:
        """Continue a job, however it has ended; the Pipeliner continues only what is marked as successful."""
        if self.status(job) != "Succeeded":
            self.api.update_job_status(job.output_dir, "Succeeded")
        path = self / job.output_dir / "continue_job.star"
        lines = path.read_text().splitlines()
        for name, value in values.items():
            (at,) = (index for index, line in enumerate(lines) if line.split()[:1] == [name])
            lines[at] = f"{name} {value}"
        path.write_text("\n".join(lines) + "\n")
        return self.api.continue_job(job.output_dir)

    def end(self, job: PipelinerJob) -> str:
        """Wait until a job has ended; give its status as the project has it."""
        self.api.wait_for_job_to_finish(job, ping=0.1, timeout=PATIENCE_S)
        return self.status(job)

    def status(self, job: PipelinerJob) -> str:
        """Give the status of a job as the project has it."""
        with ProjectGraph(read_only=False) as pipeline:
            pipeline.check_process_completion()
            return pipeline.find_process(job.output_dir).status

    def nodes(self) -> dict[str, str]:
        """Give the type of each file that the project knows."""
        with ProjectGraph() as pipeline:
            return {node.name: node.type for node in pipeline.node_list}

    def said(self, job: PipelinerJob) -> str:
        """Give what a job has said."""
        return "".join((self / job.output_dir / name).read_text() for name in ("run.out", "run.err"))

    def denoised(self, job: PipelinerJob) -> list[str]:
        """Give the micrographs of the STAR file that a job has made."""
        block = read_star(self / job.output_dir / "micrographs_denoised.star").block("micrographs")
        return [] if block is None else block.column("rlnMicrographName")

    def finished(self, job: PipelinerJob) -> int:
        """Count the lines of the journal: micrographs that are done, whose outputs are safe."""
        journal = self / job.output_dir / "denoise.jsonl"
        return journal.read_text().count('"status": "done"') if journal.exists() else 0

    def engine(self, job: PipelinerJob) -> int:
        """Wait for the process that the Pipeliner has started and its worker; give the number of the first."""
        wait_for(lambda: len(self._engines(job)) > 1, "the two processes of the job")
        found = self._engines(job)
        (first,) = (pid for pid in found if parent_of(pid) not in found)
        return first

    def is_alive(self, job: PipelinerJob) -> bool:
        """Tell whether a process of a job still runs."""
        return bool(self._engines(job))

    def cli(self, *arguments: str) -> str:
        """Run the command line of the Pipeliner."""
        done = subprocess.run(
            [PIPELINER, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=self.folder
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def end_all(self) -> None:
        """Kill what a test that has failed may have left."""
        for folder in self.folder.glob("Cryoplug*/job*"):
            for pid in _processes(f"{folder.relative_to(self.folder)}/", self.folder):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _engines(self, job: PipelinerJob) -> list[int]:
        return _processes(job.output_dir, self.folder)


def parent_of(pid: int) -> int:
    """Give the number of the process that has started another one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def command_of(pid: int) -> list[str]:
    """Give the words with which a process was started."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def _processes(job_folder: str, project: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            words = command_of(int(entry.name))
            if "cryoplug_pipeliner.engine" in words and job_folder in words and (entry / "cwd").resolve() == project:
                found.append(int(entry.name))
    return found
