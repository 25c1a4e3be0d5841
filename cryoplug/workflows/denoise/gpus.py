"""Denoise by several processes, on one GPU or on several; they share the micrographs by claims and give one result."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from cryoplug.core.results import BatchResult, FileResult
from cryoplug.errors import CryoplugError, DeviceError, Stopped
from cryoplug.machine.quick_import import import_quickly
from cryoplug.workflows.denoise.request import DenoiseRequest
from cryoplug.workflows.denoise.work import Note, Progress, RecordsBefore, Sibling

HOW = ("precision", "tta")
"""Details of a run that are known only where the network is."""
_POLL_S = 0.2
_GRACE_S = 60.0
"""Seconds that a process gets to finish its file after a stop was asked for; then it is killed."""


class Denoise(Protocol):
    """The denoise workflow, passed in as a function; each process calls it with its own request."""

    def __call__(self, request: DenoiseRequest, progress: Progress, note: Note, *, sibling: Sibling) -> BatchResult:
        """See `cryoplug.workflows.denoise.workflow.denoise`."""


@dataclass(frozen=True)
class _Ended:
    """The last message of a process."""

    error: CryoplugError | None = None
    details: dict[str, Any] = field(default_factory=dict)
    """How it computed."""


def denoise_in_processes(
    denoise: Denoise,
    requests: Sequence[DenoiseRequest],
    before: RecordsBefore,
    *,
    report: Callable[[FileResult], None],
    note: Note,
    should_stop: Callable[[], bool],
    details: dict[str, Any],
) -> bool:
    """Run a process for each request, all into the same folder, and wait for their end.

    Parameters
    ----------
    denoise
        The function that each process calls; it must belong to a module, because the new process imports it by name.
    requests
        One request per process.
    before
        The records that were there before the run; see `RecordsBefore`.
    report
        Called with every result of every process, from this thread.
    note
        Called with each sentence for the user.
    should_stop
        When it returns True, the processes stop after the file that they are writing.
    details
        Gets how the processes computed: `HOW`.

    Returns
    -------
    bool
        True when all processes finished their work; False when `should_stop` ended them.

    Raises
    ------
    CryoplugError
        The first error that ended a process; the others are stopped then. Finished micrographs are safe. When a process
        is killed, or gets no room on a GPU where others go on, those do its share; it is an error only when none is left.
    """
    context = multiprocessing.get_context("spawn")
    parts: dict[Connection, tuple[BaseProcess, str]] = {}
    process: BaseProcess
    try:
        for number, request in enumerate(requests):
            ours, theirs = context.Pipe(duplex=False)
            sibling = Sibling(before, number, len(requests))
            process = context.Process(target=_work, args=(denoise, request, sibling, theirs), daemon=True)
            process.start()
            theirs.close()
            parts[ours] = process, request.device_name
        return _Listener(parts, report=report, note=note, details=details).listen(should_stop)
    finally:
        for process, _ in parts.values():
            process.terminate()
        for process, _ in parts.values():
            process.join(_GRACE_S)
            process.kill()
            process.join()


class _Listener:
    """Hears the processes until all have ended, and decides what each end means for the run."""

    def __init__(
        self,
        parts: Mapping[Connection, tuple[BaseProcess, str]],
        *,
        report: Callable[[FileResult], None],
        note: Note,
        details: dict[str, Any],
    ) -> None:
        self._parts, self._report, self._note, self._details = parts, report, note, details
        self._open = set(parts)
        self._done: set[str] = set()
        self._lost: list[CryoplugError] = []
        self._said: set[str] = set()
        self._first_error: CryoplugError | None = None
        self._stopping = False

    def listen(self, should_stop: Callable[[], bool]) -> bool:
        """Wait for all; see `denoise_in_processes`."""
        while self._open:
            if (should_stop() or self._first_error) and not self._stopping:
                self._stopping = True
                for process, _ in self._parts.values():
                    process.terminate()
            for connection in wait(list(self._open), timeout=_POLL_S):
                assert isinstance(connection, Connection)
                self._hear(connection)
        # A signal to all of them at once may end theirs before this one has looked at its own.
        if should_stop():
            return False
        if self._first_error is not None:
            raise self._first_error
        if len(self._lost) == len(self._parts):
            raise self._lost[0]
        return True

    def _hear(self, connection: Connection) -> None:
        process, device = self._parts[connection]
        try:
            message = connection.recv()
        except EOFError:  # it went without a word
            process.join(_GRACE_S)
            self._open.discard(connection)
            self._lose(_death_of(process, device), tell=bool(self._open) and not self._stopping)
            return
        if isinstance(message, FileResult):
            self._report(message)
        elif isinstance(message, str):
            self._say_once(f"{device}: {message}")
        else:
            self._open.discard(connection)
            self._take_end(message, device)

    def _take_end(self, end: _Ended, device: str) -> None:
        self._details.update({name: end.details[name] for name in HOW if name in end.details})
        others = self._done | {self._parts[other][1] for other in self._open}
        if end.error is None:
            self._done.add(device)
        elif self._stopping:
            return
        elif isinstance(end.error, DeviceError) and device in others:
            # As where other programs leave it too little memory: then fewer processes share the GPU. One that is done has
            # done its share, too: none ends before all files are done.
            self._lose(end.error, tell=True)
        else:
            self._first_error = self._first_error or end.error

    def _lose(self, error: CryoplugError, *, tell: bool) -> None:
        self._lost.append(error)
        if tell:
            self._note(f"{error}; the others do its share")

    def _say_once(self, text: str) -> None:
        """Pass a sentence on; the processes on one GPU all say the same."""
        if text not in self._said:
            self._said.add(text)
            self._note(text)


def _death_of(process: BaseProcess, device: str) -> CryoplugError:
    code = process.exitcode
    how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
    return DeviceError(
        f"{device}: its process ended {how} without a message; finished micrographs are safe; "
        "look at the system's log for lack of memory or a failed driver, and run again"
    )


def _work(denoise: Denoise, request: DenoiseRequest, sibling: Sibling, connection: Connection) -> None:
    """Do the work of one process, and report it to the process that started it."""
    import_quickly()
    parent = os.getppid()

    def send(message: FileResult | str) -> None:
        if os.getppid() != parent:
            raise DeviceError("the process that started this one is gone; run the same command again to go on")
        connection.send(message)

    error: CryoplugError | None = None
    details: dict[str, Any] = {}
    try:
        details = denoise(request, send, send, sibling=sibling).details
    except Stopped as stopped:
        error = DeviceError(f"{request.device_name}: {stopped}")
    except CryoplugError as problem:
        error = problem
    with contextlib.suppress(OSError):
        connection.send(_Ended(error, {name: details[name] for name in HOW if name in details}))
    connection.close()
