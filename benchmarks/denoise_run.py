"""`cryoplug denoise` by several processes, as a benchmark starts, watches and kills it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cryoplug.formats.mrc import write_mrc
from programs import Deadline, Program

PIXEL_SIZE_ANGSTROM = 1.1
"""Of the files to denoise; 1 would mean that nobody knows it."""
DIFFERENT = 8
"""So many of the files to denoise have pixels of their own."""


class Denoising:
    """A denoise run under way: one command with several GPUs, or on a CPU several commands in one folder.

    Parameters
    ----------
    source, out
        Folders of the micrographs and of the results.
    checkpoint
        What --checkpoint takes.
    device
        ``cuda`` or ``cpu``.
    count
        Of processes.
    """

    def __init__(self, source: Path, out: Path, checkpoint: str, device: str, count: int) -> None:
        self.out = out
        self.times: list[float] = []
        """When a file was done, seconds since the start."""
        self.wall_s = 0.0
        """Of the whole run."""
        self._device = device
        gpus = ",".join(map(str, range(count)))
        where = ["--gpu", gpus] if device == "cuda" else ["--device", "cpu", "--threads", "1"]
        words = ["denoise", str(source), "-o", str(out), "--checkpoint", checkpoint]
        command = [sys.executable, "-m", "cryoplug", *words, "--no-previews", "--json", *where]
        self._start = time.perf_counter()
        self._programs = [Program(command) for _ in range(1 if device == "cuda" else count)]
        self._said: list[str] = []
        self._readers = [
            threading.Thread(target=read, args=(program,), daemon=True)
            for program in self._programs
            for read in (self._read, self._listen)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, program: Program) -> None:
        assert program.process.stdout is not None
        for line in program.process.stdout:
            if json.loads(line).get("status") == "done":
                self.times.append(time.perf_counter() - self._start)

    def _listen(self, program: Program) -> None:
        assert program.process.stderr is not None
        self._said.extend(program.process.stderr)

    def kill_one(self) -> None:
        """Kill a process that computes."""
        first = self._programs[0].process.pid
        os.kill(first if self._device == "cpu" else children(first)[0], signal.SIGKILL)

    def wait(self, deadline: Deadline) -> list[int]:
        """Wait for the end; give the exit codes."""
        try:
            codes = [program.process.wait(deadline.left()) for program in self._programs]
        finally:
            for program in self._programs:
                program.kill()
        self.wall_s = time.perf_counter() - self._start
        for reader in self._readers:
            reader.join()
        if any(code not in (0, -signal.SIGKILL) for code in codes) or not self.times:
            raise RuntimeError(f"denoise: exit codes {codes}\n{''.join(self._said[-30:])}")
        return codes

    def rate(self) -> float:
        """Give files a second after the first tenth."""
        times = sorted(self.times)
        first = len(times) // 10
        return (len(times) - 1 - first) / (times[-1] - times[first])

    def digest(self) -> str:
        """Give a hash of all pixels; headers name time and process."""
        with ThreadPoolExecutor(8) as pool:
            each = pool.map(
                lambda path: hashlib.sha256(path.read_bytes()[1024:]).digest(), sorted(self.out.glob("*.mrc"))
            )
        return hashlib.sha256(b"".join(each)).hexdigest()

    def remove(self) -> None:
        """Delete the results."""
        shutil.rmtree(self.out)


def children(parent: int) -> list[int]:
    """Give the processes that a command with several GPUs began, without multiprocessing's own."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            above = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_text()
        except (OSError, ValueError, IndexError):
            continue
        if above == parent and "spawn_main" in words:
            found.append(int(folder.name))
    return sorted(found)


def make_linked_files(folder: Path, count: int, side: int) -> None:
    """Write a few different micrographs, and links to them."""
    folder.mkdir()

    def write(number: int) -> None:
        pixels = np.random.default_rng(number).standard_normal((side, side), np.float32) * 3 + 20
        write_mrc(folder / f"m{number:05d}.mrc", pixels, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM)

    with ThreadPoolExecutor(DIFFERENT) as pool:
        list(pool.map(write, range(min(DIFFERENT, count))))
    for number in range(DIFFERENT, count):
        (folder / f"m{number:05d}.mrc").hardlink_to(folder / f"m{number % DIFFERENT:05d}.mrc")
