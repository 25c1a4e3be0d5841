"""Has this file changed? What the file system says of it now, to compare with what it says later."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class FileState(NamedTuple):
    """How a file stands; compared for equality only, never with a clock."""

    size_bytes: int
    """Its length."""
    mtime_ns: int
    """When its content changed, as far as programs tell: a transfer may keep the time of the original."""
    ctime_ns: int
    """When the kernel last saw it change in any way, permissions included."""
    inode: int
    """Its number: another one is another file of the same name."""

    @property
    def content(self) -> tuple[int, int]:
        """What a record keeps: it is the same after the file was copied with its time."""
        return self.size_bytes, self.mtime_ns

    @property
    def same_file(self) -> tuple[int, int, int]:
        """What must not change while a file is read; permissions and links may."""
        return self.inode, self.size_bytes, self.mtime_ns


MISSING = (-1, -1)
"""`FileState.content` of a file that is not there: missing is a state, too, and once the file is there it has changed."""


def file_state(file: Path | int) -> FileState | None:
    """Look at a file, or an open descriptor; None when it is not there, or its name is none."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return None
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def file_content(path: Path) -> tuple[int, int]:
    """Give what a record keeps of a file; `MISSING` when it is not there."""
    state = file_state(path)
    return MISSING if state is None else state.content
