"""The cryoplug program: find it, ask it, and start runs that can be followed and stopped."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Sequence

ANSWER_TIMEOUT_S = 120
"""Most seconds for a short question, such as the version; activating an environment on a network disk is slow."""
STOP_GRACE_S = 60.0
"""Seconds that cryoplug gets to end after SIGTERM."""
_OF_SCIPION = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""Variables of Scipion's Python that would lead cryoplug's Python to the wrong packages."""
_CLOCK = re.compile(r"^[0-9-]{10} [0-9:]{8} ")
"""The time stamp before each line of the log."""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class CryoplugError(Exception):
    """An error that the user can correct; its text is the message."""


@dataclass(frozen=True)
class Program:
    """How cryoplug is started.

    Raises
    ------
    CryoplugError
        From every method that starts it: the program does not exist or does not answer.
    """

    executable: str
    """Path of the program, or its name, which is then looked up on PATH."""
    activation: str = ""
    """Shell command that runs before the program; empty: none."""

    def problem(self) -> str:
        """Give the reason why cryoplug cannot be started; empty when it can."""
        if self.activation or shutil.which(self.executable):
            return ""
        return (
            f"cryoplug was not found at {self.executable}. Install it into its own environment and set CRYOPLUG_HOME "
            "to the folder of that environment, or CRYOPLUG_BIN to the program, or CRYOPLUG_ENV_ACTIVATION to the command "
            "that activates it (in scipion.conf or as an environment variable)."
        )

    def command(self, words: Sequence[str]) -> list[str]:
        """Give the words that start it as one process, also after an activation command."""
        if not self.activation:
            return [self.executable, *words]
        return ["bash", "-c", f'{self.activation.rstrip(" ;&")} && exec "$0" "$@"', self.executable, *words]

    def answer(self, *words: str) -> str:
        """Run a short command, and give its stdout."""
        self._check()
        try:
            done = subprocess.run(
                self.command(words),
                env=_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=ANSWER_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CryoplugError(f"cryoplug {' '.join(words)}: {error}") from error
        if done.returncode:
            raise CryoplugError(_sentence(words, done.returncode, done.stderr.splitlines()))
        return done.stdout

    def start(self, words: Sequence[str], note: Callable[[str], object]) -> Run:
        """Start a command with ``--json``.

        Parameters
        ----------
        words
            The command and its arguments.
        note
            Called with every line of the log, from another thread.
        """
        self._check()
        return Run(self.command([*words, "--json"]), words, note)

    def _check(self) -> None:
        if problem := self.problem():
            raise CryoplugError(problem)


class Run:
    """A command that is running: its records, line by line, and its end.

    The command is killed when the thread that started it ends in any way, also by ``kill -9``, so that a second run of
    the same protocol does not meet it.
    """

    def __init__(self, command: Sequence[str], words: Sequence[str], note: Callable[[str], object]) -> None:
        self._words = words
        self._note = note
        self._last: deque[str] = deque(maxlen=20)
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._has_ended = False
        try:
            self._process = subprocess.Popen(
                command,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                preexec_fn=_die_with(os.getpid()),
            )
        except OSError as error:
            raise CryoplugError(f"{command[0]}: cannot be started: {error.strerror or error}") from error
        self._talk = threading.Thread(target=self._read_talk, daemon=True)
        self._talk.start()
        threading.Thread(target=self._read_records, daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id of the command."""
        return self._process.pid

    def records(self, timeout_s: float | None) -> list[dict[str, Any]]:
        """Give the records that have arrived.

        Parameters
        ----------
        timeout_s
            Seconds to wait for the first one; None: until one comes or the run ends.
        """
        found: list[dict[str, Any]] = []
        while not self._has_ended:
            try:
                record = self._lines.get(timeout=timeout_s) if not found else self._lines.get_nowait()
            except queue.Empty:
                break
            if record is None:
                self._has_ended = True
            else:
                found.append(record)
        return found

    @property
    def has_ended(self) -> bool:
        """Whether all records have been given out and no more will come."""
        return self._has_ended

    def exit_code(self, allowed: Sequence[int]) -> int:
        """Wait for the end.

        Raises
        ------
        CryoplugError
            The exit code is not allowed; the message holds cryoplug's error.
        """
        code = self._process.wait()
        self._talk.join()
        if code not in allowed:
            raise CryoplugError(_sentence(self._words, code, self._last))
        return code

    def stop(self) -> list[dict[str, Any]]:
        """Ask the command to end, wait, and give the remaining records; finished micrographs stay."""
        self._process.terminate()
        try:
            self._process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return self.records(None)

    def _read_records(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if isinstance(record, dict):
                self._lines.put(record)
            elif line.strip():  # such as what an activation prints
                self._note(line.rstrip())
        self._lines.put(None)

    def _read_talk(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if line.strip():
                self._last.append(line.rstrip())
                self._note(line.rstrip())


def _sentence(words: Sequence[str], code: int, talk: Sequence[str]) -> str:
    said = [_CLOCK.sub("", line) for line in talk if line.strip()]
    errors = [line for line in said if "error:" in line.lower()] or [line for line in said if ": failed: " in line]
    why = (errors or said or ["it said nothing"])[-1]
    if code < 0:
        why = f"ended by {signal.Signals(-code).name}, often because memory ran out; Continue goes on where it stopped"
    elif code >= 128:
        why = f"stopped by signal {code - 128}; Continue goes on where it stopped"
    return f"cryoplug {words[0]} ended with exit code {code}: {why}"


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _OF_SCIPION}


def _die_with(parent: int) -> Callable[[], None]:
    def ask() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def beside(folder: str) -> Path:
    """Give the path of the program in the folder of an environment."""
    return Path(folder) / "bin" / "cryoplug"
