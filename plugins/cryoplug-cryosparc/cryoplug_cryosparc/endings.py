"""Mark the External job as failed when the command ends early, so that it does not look as if it were running."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from cryoplug.errors import CryoplugError, Stopped

from cryoplug_cryosparc.errors import EndedThereError, JobGoneError
from cryoplug_cryosparc.instance import ExternalJob

MARKING_S = 20
"""Most seconds for marking the job as failed; a queue kills a process 30 s after SIGTERM."""
_STOPS = (signal.SIGTERM, signal.SIGINT)


class _StopSignal(BaseException):
    """Raised by the signal handler; not an `Exception`, so that no library catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _TooLongError(BaseException):
    """Raised by the alarm."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """End the block with `Stopped` on SIGTERM, SIGINT and SIGHUP, also while it waits for the server.

    While `cryoplug denoise` works, its own handlers let it finish what it is writing.
    """
    before: dict[int, Any] = {number: signal.signal(number, _raise) for number in _STOPS}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, _as_term)
    try:
        yield
    except _StopSignal as stop:
        raise Stopped(stop.number, "run the same command again to go on") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def failing(job: ExternalJob, note: Callable[[str], None]) -> Iterator[None]:
    """Mark the job as failed when the block ends by an error or a signal, then raise that error again.

    Parameters
    ----------
    job
        The job.
    note
        Called with a sentence when the job could not be marked.
    """
    try:
        yield
    except (JobGoneError, EndedThereError):
        raise
    except BaseException as error:
        reason = _in_words(error)
        try:
            with _at_most(MARKING_S):
                job.fail(reason)
        except (CryoplugError, _TooLongError) as problem:
            note(
                f"{job.uid} could not be marked as failed: {problem}; run the same command again, or mark it in cryoSPARC"
            )
        raise


def _in_words(error: BaseException) -> str:
    if isinstance(error, _StopSignal):
        return f"cryoplug was stopped by {signal.Signals(error.number).name}; the same command goes on"
    if isinstance(error, CryoplugError):
        return f"cryoplug: {error}"
    return f"cryoplug: unexpected {type(error).__name__}: {error}"


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    """End the block with an error after this many seconds; stop signals wait until the block has ended."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise _TooLongError(f"no answer within {seconds} s")

    waiting = signal.pthread_sigmask(signal.SIG_BLOCK, {*_STOPS, signal.SIGHUP})
    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, waiting)


def _raise(number: int, _frame: FrameType | None) -> None:
    raise _StopSignal(number)


def _as_term(_number: int, _frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
