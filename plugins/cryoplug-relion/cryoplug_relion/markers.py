"""The empty files by which a job and RELION communicate; RELION ignores everything else, including exit codes."""

from __future__ import annotations

from pathlib import Path

from cryoplug.disk.atomic import fsync_folder

SUCCESS = "RELION_JOB_EXIT_SUCCESS"
FAILURE = "RELION_JOB_EXIT_FAILURE"
ABORTED = "RELION_JOB_EXIT_ABORTED"
ABORT_NOW = "RELION_JOB_ABORT_NOW"
"""Written by RELION or its user to stop a job; the job replaces it by `ABORTED`."""
_ENDS = (SUCCESS, FAILURE, ABORTED)


def clear_ends(folder: Path) -> None:
    """Remove the end markers of an earlier run. RELION also does this before it starts a job again."""
    for name in _ENDS:
        (folder / name).unlink(missing_ok=True)


def mark_end(folder: Path, name: str) -> None:
    """Write how the job ended, and remove the request to abort; do nothing if the folder does not exist."""
    if not folder.is_dir():
        return
    (folder / name).touch()
    (folder / ABORT_NOW).unlink(missing_ok=True)
    fsync_folder(folder)


def abort_wanted(folder: Path) -> bool:
    """Tell whether RELION asks the job to stop."""
    return (folder / ABORT_NOW).exists()
