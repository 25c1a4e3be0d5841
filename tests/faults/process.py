"""Real processes of `cryoplug`: started, waited for, measured."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import warm_start
from warm_start import Child, End, WarmStart

COMMAND = Path(sys.executable).with_name("cryoplug")
"""The command that is installed beside this Python."""
NOBODY = 65534
"""User and group without any rights."""
LIMIT_S = 180.0
"""A process that takes longer hangs."""


_IS_ADVICE = re.compile(r"\w: (open in a browser|next): ")
"""A line that says what to do when all is done."""


@dataclass(frozen=True)
class Surroundings:
    """What a process is started in."""

    environment: Mapping[str, str | None] = field(default_factory=dict)
    """Variables to set; None removes one."""
    folder: Path | None = None
    """Working folder."""
    stdin: IO[bytes] | int | None = subprocess.DEVNULL
    """Where it reads from."""
    stdout: Path | None = None
    """A file or device instead of the log."""
    before: Callable[[], object] | None = None
    """Called in the new process before the program starts: limits, closed files."""
    prefix: Sequence[str] = ()
    """Program that starts it, with arguments."""
    first: Path | None = None
    """File of Python that the process runs before the command."""

    def need_a_start(self) -> bool:
        """Tell whether a fork of a process that runs already would not be what the row is about."""
        surrounding = self.prefix or self.before or self.stdout or self.stdin != subprocess.DEVNULL
        return bool(surrounding) or any(not name.startswith("FAULTS_") for name in self.environment)


@dataclass(frozen=True)
class Finished:
    """A process that has ended."""

    words: tuple[str, ...]
    """Its arguments, without the program's name."""
    code: int
    """Exit code; of one that a signal killed, minus the signal."""
    stdout: str
    """What it printed."""
    stderr: str
    """What it said."""
    seconds: float
    """How long it ran."""
    work_s: float
    """Seconds of processor time that it took: the same on a machine that others use too."""
    peak_mb: float
    """The most memory it held."""

    def line(self, wanted: str = "") -> str:
        """Give the last line of stderr that has `wanted` in it, else the last that says what happened."""
        lines = [line for line in self.stderr.splitlines() if line.strip() and not _IS_ADVICE.search(line)]
        return next((line for line in reversed(lines) if wanted in line), lines[-1] if lines else "")


class Running:
    """A process that was started.

    Parameters
    ----------
    words
        Arguments of `cryoplug`.
    log
        Prefix of the two files that get stdout and stderr.
    how
        What it is started in.
    warm
        Where it is forked from, unless its surroundings need a process that starts like a user's.
    """

    def __init__(
        self, words: Sequence[str | os.PathLike[str]], log: Path, how: Surroundings, warm: WarmStart | None = None
    ) -> None:
        self.words = tuple(os.fspath(word) for word in words)
        self._out, self._err = log.with_suffix(".out"), log.with_suffix(".err")
        self._begin = time.monotonic()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("CRYOPLUG")}
        # The same on every machine: no plugin, and no GPU unless a row asks for one.
        changes = {"CRYOPLUG_NO_PLUGINS": "1", "CUDA_VISIBLE_DEVICES": "", **how.environment}
        environment.update({key: value for key, value in changes.items() if value is not None})
        for key, value in changes.items():
            if value is None:
                environment.pop(key, None)
        if warm is None or how.need_a_start():
            self._child = self._started(how, environment)
        else:
            self._child = warm.start(
                *self.words,
                program=_program(how),
                folder=how.folder,
                environment=environment,
                stdout=how.stdout or self._out,
                stderr=self._err,
            )

    def _started(self, how: Surroundings, environment: dict[str, str]) -> Child:
        command = [str(COMMAND)] if how.first is None else [sys.executable, "-c", _program(how)]
        with (how.stdout or self._out).open("wb") as out, self._err.open("wb") as err:
            process = subprocess.Popen(
                [*how.prefix, *command, *self.words],
                env=environment,
                cwd=how.folder,
                stdin=how.stdin,
                stdout=out,
                stderr=err,
                preexec_fn=how.before,
            )

        def reap(pid: int) -> End:
            _, status, usage = os.wait4(pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            return End(process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)

        return Child(process.pid, self._out, self._err, reap)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._child.pid

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self._err.read_text(encoding="utf-8", errors="replace")

    @property
    def ended(self) -> bool:
        """Tell whether `finish` was called."""
        return self._child.end is not None

    def send(self, number: int) -> None:
        """Send a signal; nothing when it has ended."""
        self._child.send_signal(number)

    def wait_until(self, happened: Callable[[], bool], limit_s: float = LIMIT_S) -> bool:
        """Wait for something; False when the process ended before, or it took too long."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            if happened():
                return True
            if not self.alive():
                return happened()
            time.sleep(0.002)
        return False

    def alive(self) -> bool:
        """Tell whether it still runs."""
        return self._child.poll() is None

    def finish(self, limit_s: float = LIMIT_S) -> Finished:
        """Wait for its end; kill it after `limit_s`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(limit_s)
        if self._child.end is None:
            self._child.kill()
            self._child.wait()
        end = self._child.end
        assert end is not None
        return Finished(
            words=self.words,
            code=end.code,
            stdout=self._out.read_text(encoding="utf-8", errors="replace") if self._out.exists() else "",
            stderr=self.said,
            seconds=time.monotonic() - self._begin,
            work_s=end.work_s,
            peak_mb=end.peak_mb,
        )


def _program(how: Surroundings) -> str:
    first = "" if how.first is None else f"exec(open({os.fspath(how.first)!r}).read(), {{}}); "
    return first + warm_start.COMMAND
