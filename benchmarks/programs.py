"""Programs that a benchmark starts: each has a time limit, and ends with all that it began."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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


def torchrun(count: int, words: Sequence[str]) -> list[str]:
    """Give the command that starts Python so many times on this host; without torchrun where it is once."""
    if count == 1:
        return [sys.executable, *words]
    # Named by its address, because the name of a machine without a network may mean nothing.
    here = ("--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(count))
    return [sys.executable, "-m", "torch.distributed.run", *here, *words]
