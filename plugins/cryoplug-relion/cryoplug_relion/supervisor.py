"""Run a job in two processes: one works, the other watches it and tells RELION how it ended.

A job that ends without a marker stays "Running" in RELION for ever, and every scheme that waits for it waits for ever. The
worker may end without a chance to write a marker: killed by the kernel when memory runs out, or by a fault in a library. So
the process that RELION starts makes a second one, the worker, and only watches it. The watching process is small, so the
kernel kills the worker first. It also looks for RELION's request to abort, and passes signals on. When the watching process
is killed, the worker ends too, and the same command goes on later.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NoReturn

import click

from cryoplug_relion.markers import ABORTED, FAILURE, SUCCESS, abort_wanted, clear_ends, mark_end

STOP_GRACE_S = 20.0
"""Seconds that the worker gets to stop after a signal; less than 30, because Slurm kills 30 s after SIGTERM."""
POLL_S = 1.0
"""Seconds between two looks for RELION's request to abort."""
ENDINGS_WITH_RESULT = (0, 3)
"""Exit codes of cryoplug with complete outputs: 0, all done; 3, some micrographs failed and were named."""
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU)
_PR_SET_PDEATHSIG = 1
_COMPLETE = b"complete"

_report: int | None = None
"""In the worker: file descriptor on which it reports that its outputs are complete."""


def job_folder(arguments: Sequence[str]) -> Path | None:
    """Find the folder in the arguments of a job, even if the other arguments are wrong; None if none is named."""
    found = None
    for index, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name in ("--o", "--output"):
            found = value if equals else next(iter(arguments[index + 1 : index + 2]), None)
        elif word == "-o":
            found = next(iter(arguments[index + 1 : index + 2]), None)
    return None if not found or found.startswith("-") or "\0" in found else Path(found)


def supervised(folder: Path, work: Callable[[], int]) -> int:
    """Do the work in a second process, watch it, and tell RELION how it ended.

    Parameters
    ----------
    folder
        The job's folder; it may be missing, and is not made here.
    work
        Does the work and gives the exit code; it is called only in the second process.

    Returns
    -------
    int
        Exit code for the process that RELION started.
    """
    stops = {number for number in _STOPS if signal.getsignal(number) is not signal.SIG_IGN}
    watched = {*stops, signal.SIGCHLD, signal.SIGUSR1}
    sys.stdout.flush()
    sys.stderr.flush()
    report_end, own_end = os.pipe()
    os.set_blocking(report_end, False)
    # Blocked before there are two of us: no signal can get lost between here and the loop.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    watcher = os.getpid()
    try:
        if folder.is_dir():
            clear_ends(folder)
        worker = os.fork()
        if worker == 0:
            _work_and_end(work, own_end, watcher, before)
        return _watch(folder, worker, report_end, stops=stops, watched=watched)
    except OSError:
        mark_end(folder, FAILURE)
        raise
    finally:
        os.close(report_end)
        os.close(own_end)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def outputs_are_complete() -> None:
    """Report, as the last step of the worker, that every output is there and was read back."""
    if _report is not None:
        os.write(_report, _COMPLETE)


def _work_and_end(work: Callable[[], int], own_end: int, watcher: int, mask: Collection[int]) -> NoReturn:
    """Do the work in the second process, and end that process here, so that the caller's code does not run twice."""
    global _report
    code = 1
    try:
        _die_with(watcher)
        # Slurm's hint may come before the work looks out for it, and would end this process.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _report = own_end
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 -- nobody is left to raise it to
        traceback.print_exc()
    finally:
        os._exit(code)


def _watch(folder: Path, worker: int, report: int, *, stops: set[signal.Signals], watched: set[signal.Signals]) -> int:
    aborting = False
    kill_at: float | None = None
    while (status := _ended(worker)) is None:
        caught = signal.sigtimedwait(watched, POLL_S)
        wanted = not aborting and abort_wanted(folder)
        if wanted:
            aborting = True
            click.echo("relion: RELION asks to abort; stopping", err=True)
        if wanted or (caught is not None and caught.si_signo in stops):
            os.kill(worker, signal.SIGTERM)
            kill_at = kill_at or time.monotonic() + STOP_GRACE_S
        elif caught is not None and caught.si_signo == signal.SIGUSR1:
            os.kill(worker, signal.SIGUSR1)
        if kill_at is not None and time.monotonic() > kill_at:
            os.kill(worker, signal.SIGKILL)
    if _is_complete(report) and status in ENDINGS_WITH_RESULT:
        mark_end(folder, SUCCESS)
        return status
    if status == -signal.SIGKILL and kill_at is None:
        reason = "killed by SIGKILL, often because memory ran out: give less with --max-memory or --batch-size"
        click.echo(f"relion: error: {reason}; the same command goes on", err=True)
    elif status < 0 and kill_at is None:
        click.echo(f"relion: error: ended by {signal.Signals(-status).name}; the same command goes on", err=True)
    mark_end(folder, ABORTED if aborting else FAILURE)
    # Never 0 without outputs: a batch script looks at the exit code.
    return 128 - status if status < 0 else status or 1


def _is_complete(report: int) -> bool:
    try:
        return os.read(report, len(_COMPLETE)) == _COMPLETE
    except BlockingIOError:
        return False


def _ended(worker: int) -> int | None:
    """Give the exit code of the worker, or minus the signal that ended it; None while it lives."""
    found, status = os.waitpid(worker, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _die_with(watcher: int) -> None:
    """Ask the kernel to kill this process when the watching one ends, so that a job never has two workers."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != watcher:
        os._exit(1)
