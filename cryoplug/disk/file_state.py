"""Has this file changed? Size, times and number of a file, to compare with those that it has later."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class FileState(NamedTuple):
    """The state of a file; compare it only for equality, never with a clock."""

    size_bytes: int
    """Length of the file."""
    mtime_ns: int
    """When its content changed, as programs report it: a transfer may keep the time of the original."""
    ctime_ns: int
    """When it last changed in any way, including its permissions, as the kernel saw it."""
    inode: int
    """Inode number: another number means another file of the same name."""

    @property
    def content(self) -> tuple[int, int]:
        """Size and time, for a record: they stay the same when the file is copied together with its time."""
        return self.size_bytes, self.mtime_ns

    @property
    def same_file(self) -> tuple[int, int, int]:
        """The part that must not change while a file is read; permissions and links may change."""
        return self.inode, self.size_bytes, self.mtime_ns


MISSING = (-1, -1)
"""`FileState.content` of a missing file. Missing is a state, too: once the file is there, it has changed."""


def file_state(file: Path | int) -> FileState | None:
    """Look at a file, or an open descriptor; None if it is not there, or its name is not a valid one."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return None
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def file_content(path: Path) -> tuple[int, int]:
    """Give size and time of a file, for a record; `MISSING` if it is not there."""
    state = file_state(path)
    return MISSING if state is None else state.content
