"""Is a file that another program writes complete? It has stopped changing, and is as long as its header says."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cryoplug.disk.file_state import FileState, file_state
from cryoplug.disk.opening import open_for_reading
from cryoplug.errors import InputError, StorageError
from cryoplug.formats.mrc_header import HEADER_BYTES, SUPPORTED_MODES, examine, read_head, row_bytes
from cryoplug.formats.registry import formats


class Settling:
    """Remembers since when each file has not changed.

    Parameters
    ----------
    settle_s
        Seconds, of this machine's steady clock, for which size and time must not change.
    """

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._seen: dict[Path, tuple[FileState, float]] = {}

    def look(self, path: Path) -> tuple[FileState | None, bool]:
        """Look at a file.

        Returns
        -------
        tuple
            Its state (None if it is not there), and whether it has not changed for long enough.
        """
        state = file_state(path)
        if state is None:
            self._seen.pop(path, None)
            return None, False
        now = time.monotonic()
        before = self._seen.get(path)
        if before is None or before[0] != state:
            self._seen[path] = (state, now)
            return state, self._settle_s == 0
        return state, now - before[1] >= self._settle_s


def missing_bytes(path: Path) -> int:
    """Compute how many bytes a file lacks, according to its header.

    Returns
    -------
    int
        0 if it is long enough, or if its format does not say. Also 0 if its header makes no sense, because then its reader
        gives the better error. 1 for an empty file.
    """
    try:
        descriptor = open_for_reading(path)
        try:
            head, size_bytes = read_head(descriptor)
        finally:
            os.close(descriptor)
    except (InputError, StorageError, OSError):
        return 0
    if size_bytes == 0:
        return 1
    if not path.name.lower().endswith(formats()["mrc"].extensions):
        return 0
    if size_bytes < HEADER_BYTES:
        return HEADER_BYTES - size_bytes
    record = examine(head, size_bytes).record
    if record is None:
        return 0
    nx, ny, nz, mode, extended = (int(record[name]) for name in ("nx", "ny", "nz", "mode", "nsymbt"))
    if mode not in SUPPORTED_MODES or min(nx, ny, nz) < 1 or extended < 0:
        return 0
    return max(0, HEADER_BYTES + extended + row_bytes(mode, nx) * ny * nz - size_bytes)
