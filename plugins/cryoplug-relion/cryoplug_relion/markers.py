"""The empty files by which a job and RELION talk to each other; RELION looks at nothing else, least of all exit codes."""

from __future__ import annotations

from pathlib import Path

from cryoplug.disk.atomic import fsync_folder

SUCCESS = "RELION_JOB_EXIT_SUCCESS"
FAILURE = "RELION_JOB_EXIT_FAILURE"
ABORTED = "RELION_JOB_EXIT_ABORTED"
ABORT_NOW = "RELION_JOB_ABORT_NOW"
"""Written by RELION or its user; the job answers it with `ABORTED` and removes it."""
_ENDS = (SUCCESS, FAILURE, ABORTED)


def clear_ends(folder: Path) -> None:
    """Remove what an earlier run said about its end. RELION does so too before it starts a job again."""
    for name in _ENDS:
        (folder / name).unlink(missing_ok=True)


def mark_end(folder: Path, name: str) -> None:
    """Say how the job ended, and remove the wish to abort it; where there is no such folder, nobody is listening."""
    if not folder.is_dir():
        return
    (folder / name).touch()
    (folder / ABORT_NOW).unlink(missing_ok=True)
    fsync_folder(folder)


def abort_wanted(folder: Path) -> bool:
    """Tell whether RELION asks for an end."""
    return (folder / ABORT_NOW).exists()
