"""Claims: small files by which processes, also on several machines, agree which of them works on what.

A claim is made by ``open(O_CREAT | O_EXCL)``, which is atomic on local disks and on NFS from version 3. ``flock`` is not
used: on many network disks only the same machine sees it, or nobody. The file says who made it, and its owner increases a
number in it every few seconds. A claim counts as dead when

- its process ran on this machine (same boot, same process namespace) and has ended, or its number belongs to another now;
- else when its contents have not changed for `STALE_AFTER_S` seconds of the reader's own steady clock. Times of files and
  clocks of other machines do not count.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from cryoplug.disk.atomic import storage_errors
from cryoplug.errors import OutputBusyError

BEAT_S = 5.0
"""Seconds between two signs of life of an owner."""
STALE_AFTER_S = 60.0
"""Seconds without a sign of life after which a claim of another machine counts as dead."""
CLAIM_SUFFIX = ".claim"
_MAX_BYTES = 4096
_POLL_S = 0.5


@dataclass(frozen=True)
class Owner:
    """The process that made a claim."""

    host: str
    """Name of its machine, for people."""
    pid: int
    """Its process number there; 0 if the claim could not be read."""
    started: str
    """When it started, in the kernel's clock ticks; empty if the system does not say."""
    machine: str
    """Boot and process namespace: equal only if `pid` means the same process; empty if unknown."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else "an unknown process"


class Claims:
    """The claims that this process holds; all are released when the block ends.

    Parameters
    ----------
    beat_s, stale_after_s
        See `BEAT_S` and `STALE_AFTER_S`; all processes must use the same.
    """

    def __init__(self, *, beat_s: float = BEAT_S, stale_after_s: float = STALE_AFTER_S) -> None:
        self._beat_s = beat_s
        self._stale_after_s = stale_after_s
        self._held: dict[Path, int] = {}
        self._seen: dict[Path, tuple[bytes, float]] = {}
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._beater: threading.Thread | None = None
        self._count = 0

    def __enter__(self) -> Claims:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._beater is not None:
            self._beater.join()
        for path in list(self._held):
            self.release(path)

    def take(self, path: Path) -> Owner | None:
        """Try to make a claim; never waits.

        Parameters
        ----------
        path
            The file of the claim; its folder is made when missing.

        Returns
        -------
        Owner | None
            None if this process has it now. Else the owner: a live process, or one on another machine that is not yet
            known to be dead; ask again later.

        Raises
        ------
        StorageError
            The system refused: full, read-only, no permission.
        """
        with self._lock:
            if path in self._held:
                return None
            while True:
                if self._create(path):
                    return None
                found = _read(path)
                if found is None:
                    continue  # it was released between the two looks
                owner = _parse(found)
                if not self._is_dead(path, found, owner):
                    return owner
                remover = self._remove_dead(path, found)
                if remover is not None:
                    return remover

    def take_or_fail(self, path: Path, what: str) -> None:
        """Claim something that no other process may have at the same time.

        For a claim of another machine, this waits until it shows a sign of life or counts as dead.

        Raises
        ------
        OutputBusyError
            A live process has it.
        """
        owner = self.take(path)
        first = self._seen.get(path)
        while owner is not None:
            seen = self._seen.get(path)
            if first is None or seen is None or seen[0] != first[0]:
                raise _busy(what, owner)
            time.sleep(min(self._beat_s, _POLL_S))
            owner = self.take(path)

    def _remove_dead(self, path: Path, found: bytes) -> Owner | None:
        """Remove a dead claim, but never a new one that has taken its place; or say which process is removing it.

        Looking and removing are two steps, so another process may come between them. But the contents of a dead claim
        never change, and no other claim has the same. So the right to remove exactly these contents is a claim, too.
        """
        right = path.with_name(f"{path.name}.{hashlib.sha256(found).hexdigest()[:12]}.dead")
        remover = self.take(right)
        if remover is not None:
            return remover
        try:
            if _read(path) == found:
                with storage_errors(path):
                    path.unlink(missing_ok=True)
        finally:
            self.release(right)
        return None

    def release(self, path: Path) -> None:
        """Give a claim back; a claim of another process is left alone."""
        with self._lock:
            descriptor = self._held.pop(path, -1)
            if descriptor < 0:
                return
            with contextlib.suppress(OSError):
                # After a long halt it may have been given up for dead and belong to another process now.
                mine, there = os.fstat(descriptor), path.stat()
                if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
                    path.unlink()
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _create(self, path: Path) -> bool:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Before the file is made: who dies between making and writing leaves a claim of nobody, watched for a minute.
            text = self._text()
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            except FileExistsError:
                return False
            try:
                os.pwrite(descriptor, text, 0)
                os.fsync(descriptor)  # a network disk keeps it to itself until then
            except OSError:
                os.close(descriptor)
                path.unlink(missing_ok=True)
                raise
        self._seen.pop(path, None)
        self._held[path] = descriptor
        if self._beater is None:
            self._beater = threading.Thread(target=self._beat, name="cryoplug-claims", daemon=True)
            self._beater.start()
        return True

    def _text(self) -> bytes:
        values = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _own_start(os.getpid()),
            "machine": _machine(),
            "beat": f"{self._count:012d}",  # equal lengths, so that it can be written over
        }
        return json.dumps(values).encode() + b"\n"

    def _beat(self) -> None:
        while not self._ended.wait(self._beat_s):
            with self._lock:
                self._count += 1
                for descriptor in self._held.values():
                    # A disk that is full or away for a moment: the next beat tries again.
                    with contextlib.suppress(OSError):
                        os.pwrite(descriptor, self._text(), 0)
                        os.fsync(descriptor)

    def _is_dead(self, path: Path, found: bytes, owner: Owner) -> bool:
        if owner.started and owner.machine and owner.machine == _machine():
            self._seen.pop(path, None)
            return process_started(owner.pid) != owner.started
        now = time.monotonic()
        seen = self._seen.get(path)
        if seen is None or seen[0] != found:
            self._seen[path] = (found, now)
            return False
        return now - seen[1] >= self._stale_after_s


def refuse_held(path: Path, what: str) -> None:
    """Raise an error if a live process of this machine has the claim; claim nothing. Other machines are not checked.

    Raises
    ------
    OutputBusyError
        As `Claims.take_or_fail`.
    """
    found = _read(path)
    owner = None if found is None else _parse(found)
    if owner and owner.started and owner.machine == _machine() and process_started(owner.pid) == owner.started:
        raise _busy(what, owner)


def process_started(pid: int) -> str:
    """Give the start of a live process in the kernel's clock ticks; empty without such a process, or without ``/proc``."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (OSError, ValueError):
        return ""
    # The name of the program may hold spaces and brackets; the fields are counted from its closing bracket.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in ("Z", "X"):
        return ""
    return fields[19]


@functools.cache
def _own_start(pid: int) -> str:
    """Give the start of this process, read once; a forked process has another number, and reads its own."""
    return process_started(pid)


@functools.cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 -- no path, a name of the kernel
    except OSError:
        return ""


def _busy(what: str, owner: Owner) -> OutputBusyError:
    return OutputBusyError(f"{what}: in use by {owner}; wait for its end or choose another output")


def _read(path: Path) -> bytes | None:
    """Give the contents of a claim: empty if they cannot be read, None if there is no claim."""
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError:
        return b""


def _parse(found: bytes) -> Owner:
    try:
        values = json.loads(found)
        return Owner(str(values["host"]), int(values["pid"]), str(values["started"]), str(values["machine"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return Owner("", 0, "", "")
