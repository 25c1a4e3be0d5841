"""Programs that a benchmark starts: each has a time limit, and ends with all that it began."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Deadline:
    """When something must be over."""

    at: float
    """By `time.monotonic`."""

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Begin now."""
        return cls(time.monotonic() + seconds)

    def left(self) -> float:
        """Give the seconds until then; never less than a hundredth."""
        return max(0.01, self.at - time.monotonic())

    def or_after(self, seconds: float) -> Deadline:
        """Give the sooner of this and of so many seconds from now."""
        return Deadline(min(self.at, time.monotonic() + seconds))


class Program:
    """A program under way, in a process group of its own.

    Parameters
    ----------
    command
        Its words.
    variables
        Of the environment, beside those that are there.
    """

    def __init__(self, command: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
        self._words = " ".join(command)
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def output(self, deadline: Deadline) -> str:
        """Wait for its end; give its stdout. It is killed at the deadline."""
        try:
            out, error = self.process.communicate(timeout=deadline.left())
        except subprocess.TimeoutExpired:
            self.kill()
            out, error = self.process.communicate()
            raise RuntimeError(f"no time left: {self._words}\n{out[-1500:]}\n{error[-1500:]}") from None
        finally:
            self.kill()
        if self.process.returncode:
            raise RuntimeError(f"exit {self.process.returncode}: {self._words}\n{out[-1500:]}\n{error[-3000:]}")
        return out

    def kill(self) -> None:
        """End it and all that it began."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


@dataclass(frozen=True)
class Ran:
    """A program that came to its end."""

    wall_s: float
    """From its start to its end."""
    cpu_s: float
    """Processor time of all its threads, and of the programs that it waited for."""
    began: float
    """When, by `time.time`."""
    out: str
    """Its stdout."""

    def result(self) -> dict[str, Any]:
        """Give what it printed last, as JSON."""
        found: dict[str, Any] = json.loads(self.out.strip().splitlines()[-1])
        return found


def run_python(words: Sequence[str], checkout: Path = ROOT, bytecode: Path | None = None) -> Ran:
    """Run Python with the package of a checkout, and with the benchmarks of this one, until it ends.

    Parameters
    ----------
    words
        What stands behind ``python``.
    checkout
        The checkout; also the working folder.
    bytecode
        Where Python keeps compiled modules, as an ordinary installation has them; None: where it does by itself, if at all.
    """
    path = os.pathsep.join(filter(None, (str(checkout), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", ""))))
    kept = {} if bytecode is None else {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(bytecode)}
    before, began, start = os.times(), time.time(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": path, **kept},
        capture_output=True,
        text=True,
        check=False,
    )
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}: {' '.join(words)[:300]}\n{done.stderr[-3000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Ran(wall, cpu, began, done.stdout)


def torchrun(count: int, words: Sequence[str]) -> list[str]:
    """Give the command that starts Python so many times on this host; without torchrun where it is once."""
    if count == 1:
        return [sys.executable, *words]
    # Named by its address, because the name of a machine without a network may mean nothing.
    here = ("--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(count))
    return [sys.executable, "-m", "torch.distributed.run", *here, *words]
