"""One writer at a time: a lock beside the output that the system drops when its owner dies."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from cryoplug.core.atomic import storage_errors
from cryoplug.errors import OutputBusyError


class OutputLock:
    """Holds an output for this process until `release`.

    Parameters
    ----------
    path
        The lock file; its folder must exist.

    Raises
    ------
    OutputBusyError
        Another live process holds it; the message names it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        while self._descriptor < 0:
            self._descriptor = self._try()

    def release(self) -> None:
        """Remove the lock file and let others in. A second call does nothing."""
        if self._descriptor >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def _try(self) -> int:
        with storage_errors(self.path):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "another run"
            os.close(descriptor)
            raise OutputBusyError(
                f"{self.path.parent}: in use by {owner}; wait for its end or choose another output"
            ) from error
        except OSError:
            # Some network file systems have no locks: work without one rather than not at all.
            pass
        try:
            same = self.path.stat().st_ino == os.fstat(descriptor).st_ino
        except FileNotFoundError:
            same = False
        if not same:  # The previous owner removed the file between our open and our lock.
            os.close(descriptor)
            return -1
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        return descriptor
