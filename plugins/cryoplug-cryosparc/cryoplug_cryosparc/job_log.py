"""Write the results of micrographs into the job's log in cryoSPARC, in a separate thread.

A slow or restarting server must not delay denoising. The same thread checks whether somebody has ended or deleted the
job in cryoSPARC; then denoising ends.
"""

from __future__ import annotations

import functools
import os
import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

from cryoplug.cli.progress import describe
from cryoplug.core.results import FileResult
from cryoplug.errors import CryoplugError

from cryoplug_cryosparc.errors import JobGoneError
from cryoplug_cryosparc.instance import ACTIVE, ExternalJob

LOOK_S = 10.0
"""Seconds between two checks of the job's status, and between two lines of progress."""
CLOSE_S = 30.0
"""Most seconds for the last lines at the end."""


class JobLog:
    """Writes into the job's log until it is closed.

    Parameters
    ----------
    job
        The job, which is running.
    total
        Number of micrographs.
    note
        Called once when lines cannot be written, and when somebody else ended the job.
    """

    def __init__(self, job: ExternalJob, total: int, note: Callable[[str], None]) -> None:
        self.ended_by: str | None = None
        """Status with which somebody ended the job in cryoSPARC; None: nobody ended it."""
        self._job = job
        self._total = total
        self._note = note
        self._lines: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._counts: Counter[str] = Counter()
        self._begun_s = time.monotonic()
        self._said = ""
        self._silent = False
        self._thread = threading.Thread(target=self._run, name="job log", daemon=True)
        self._thread.start()

    def line(self, text: str, level: str = "text") -> None:
        """Write a line into the job's log."""
        self._lines.put((text, level))

    def file(self, result: FileResult) -> None:
        """Count a micrograph; a failure or a remark gets a line."""
        self._counts[result.status] += 1
        if result.status == "failed":
            self.line(describe(result), "error")
        elif result.status == "done" and result.message:
            self.line(describe(result), "warning")

    def close(self) -> None:
        """Write the remaining lines, and end; a second call does nothing."""
        self._lines.put(None)
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        next_look_s = time.monotonic() + LOOK_S
        while True:
            try:
                item = self._lines.get(timeout=max(0.0, next_look_s - time.monotonic()))
            except queue.Empty:
                next_look_s = time.monotonic() + LOOK_S
                self._deliver(self._look)
                self._deliver(self._progress)
                continue
            if item is None:
                self._deliver(self._progress)
                return
            self._deliver(functools.partial(self._job.log, *item))

    def _look(self) -> None:
        status = self._job.status()
        if status not in ACTIVE:
            self._end(status)

    def _progress(self) -> None:
        text = progress_line(self._counts, self._total, time.monotonic() - self._begun_s)
        if text != self._said:
            self._said = text
            self._job.progress(text)

    def _deliver(self, say: Callable[[], None]) -> None:
        try:
            say()
        except JobGoneError:
            self._end("deleted")
        except CryoplugError as error:
            if not self._silent:
                self._note(f"{error}; denoising goes on, the job's log lacks some lines")
            self._silent = True

    def _end(self, status: str) -> None:
        if self.ended_by is None:
            self.ended_by = status
            self._note(f"{self._job.uid} is {status} in cryoSPARC; stopping")
            os.kill(os.getpid(), signal.SIGTERM)


def progress_line(counts: Counter[str], total: int, elapsed_s: float) -> str:
    """Give a line with the progress of a run and the time left."""
    done, left = counts["done"], total - counts.total()
    text = f"{counts['done'] + counts['skipped']} of {total} micrographs are denoised"
    if counts["failed"]:
        text += f", {counts['failed']} failed"
    if done and left > 0:
        minutes = elapsed_s / done * left / 60
        text += f"; about {max(1, round(minutes))} min left"
    return text
