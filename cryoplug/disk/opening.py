"""Opening files; an error of the system becomes one that names the file."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from cryoplug.errors import InputError, MissingInputError, StorageError


@contextlib.contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusal to read into an error of cryoplug that names `path`."""
    try:
        yield
    except (InputError, StorageError):
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingInputError(f"{path}: there is no such file; check the name and the working folder") from error
    except ValueError as error:  # a NUL byte in the name
        raise MissingInputError(f"{str(path)!r}: this cannot be a file name ({error}); correct it") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path}: a link that leads to itself; correct or remove it") from error
        raise StorageError(f"{path}: reading failed: {error.strerror or error}; check permissions and disk") from error


def open_for_reading(path: Path) -> int:
    """Open a regular file; give its descriptor."""
    with read_errors(path):
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path}: this is a folder, a device or a pipe; a micrograph is a regular file")
    return descriptor
