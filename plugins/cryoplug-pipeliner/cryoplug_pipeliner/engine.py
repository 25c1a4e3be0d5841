"""Run a command of cryoplug for the Pipeliner, with an exit code that the Pipeliner understands.

``python3 -m cryoplug_pipeliner.engine JOB_FOLDER/ cryoplug WORDS...`` runs ``cryoplug WORDS...`` in this process. Two things
differ from the command line:

- The Pipeliner takes every exit code except 0 for a failure, and stops all jobs that wait for this one. cryoplug exits with
  3 when it has finished but some micrographs failed. They were named and left out, so the job counts as a success.
- If the Pipeliner's process that watches the job is killed, nothing would stop the job or record its end, and it would stay
  "Running" in the project for ever. So this process then ends too, and marks the job as failed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from cryoplug.cli.main import main as cryoplug
from cryoplug.cli.output import say
from pipeliner.data_structure import ABORT_TRIGGER, FAIL_FILE

SOME_FAILED = 3
"""Exit code of cryoplug: finished, but some inputs failed; each was named."""
_PR_SET_PDEATHSIG = 1


def run(folder: Path, words: list[str]) -> int:
    """Run a command of cryoplug as a job.

    Parameters
    ----------
    folder
        Folder of the job.
    words
        Words after ``cryoplug``.

    Returns
    -------
    int
        Exit code for the Pipeliner; only 0 means success.
    """
    own, watcher = os.getpid(), os.getppid()

    def mark_if_unwatched(*, stopped: bool) -> bool:
        if os.getpid() != own:
            return False  # a process that cryoplug has forked; this one hears how it ended
        # A process that is being killed still counts as the parent for a moment, so a stop that nobody asked for counts too.
        unwatched = os.getppid() != watcher or (stopped and not (folder / ABORT_TRIGGER).exists())
        if unwatched:
            (folder / FAIL_FILE).touch()
        return unwatched

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        """End the process while cryoplug is still loading; later cryoplug handles signals itself."""
        mark_if_unwatched(stopped=True)
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    # From now on the kernel sends SIGTERM when the watcher is gone: cryoplug stops in order, with all that is finished safe.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != watcher:
        stop(signal.SIGTERM, None)
    try:
        cryoplug(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    if mark_if_unwatched(stopped=code == 128 + signal.SIGTERM):
        say("pipeliner: error: this job was stopped, or the process that watched it; continue the job")
        return code or 1
    if code == SOME_FAILED:
        say("pipeliner: some micrographs failed, see above; all others are done, so the job has succeeded")
        return 0
    return code


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[3:]))
