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
        return _listen(parts, report=report, note=note, should_stop=should_stop, details=details)
    finally:
        for process, _ in parts.values():
            process.terminate()
        for process, _ in parts.values():
            process.join(_GRACE_S)
            process.kill()
            process.join()


def _listen(
    parts: Mapping[Connection, tuple[BaseProcess, str]],
    *,
    report: Callable[[FileResult], None],
    note: Note,
    should_stop: Callable[[], bool],
    details: dict[str, Any],
) -> bool:
    open_ones, stopping, first_error = set(parts), False, None
    killed: list[CryoplugError] = []
    said: set[str] = set()
    done: set[str] = set()
    while open_ones:
        if (should_stop() or first_error) and not stopping:
            stopping = True
            for process, _ in parts.values():
                process.terminate()
        for connection in wait(list(open_ones), timeout=_POLL_S):
            assert isinstance(connection, Connection)
            process, device = parts[connection]
            try:
                message = connection.recv()
            except EOFError:  # it went without a word
                process.join(_GRACE_S)
                killed.append(_death_of(process, device))
                open_ones.discard(connection)
                if open_ones and not stopping:
                    note(f"{killed[-1]}; the others do its share")
                continue
            if isinstance(message, FileResult):
                report(message)
            elif isinstance(message, str):
                # Of the processes on one GPU, each says the same.
                text = f"{device}: {message}"
                if text not in said:
                    said.add(text)
                    note(text)
            else:
                open_ones.discard(connection)
                details.update({name: message.details[name] for name in HOW if name in message.details})
                others = done | {parts[other][1] for other in open_ones}
                if message.error is None:
                    done.add(device)
                elif stopping:
                    continue
                elif isinstance(message.error, DeviceError) and device in others:
                    # As where other programs leave it too little memory: then fewer processes share the GPU. One that is done has
                    # done its share, too: none ends before all files are done.
                    killed.append(message.error)
                    note(f"{message.error}; the others do its share")
                else:
                    first_error = first_error or message.error
    # A signal to all of them at once may end theirs before this one has looked at its own.
    if should_stop():
        return False
    if first_error is not None:
        raise first_error
    if len(killed) == len(parts):
        raise killed[0]
    return True


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
