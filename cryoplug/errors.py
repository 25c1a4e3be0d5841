"""Every error cryoplug raises on purpose, and the exit code that each means.

::

    CryoplugError                      1   unexpected failure
    ├── UsageError        (ValueError) 2   a flag, a field or a configuration is wrong
    ├── InputError        (ValueError) 4   an input cannot be used
    │   ├── MissingInputError (FileNotFoundError)
    │   ├── FormatError                    a file is broken, or of a kind that is not read
    │   │   └── SeveralImagesError         a file of several images, where a single one is needed
    │   ├── ShapeError                     sizes disagree
    │   ├── PairingError                   noisy/clean or even/odd do not belong together
    │   └── PixelError                     NaN, infinite or constant pixels
    ├── StorageError         (OSError) 5   disk full, read-only, permission, I/O
    ├── DivergedError (ArithmeticError) 6  training produced a loss that is not finite
    ├── DeviceError     (RuntimeError) 7   memory or device
    ├── OutputBusyError (RuntimeError) 8   the output belongs to another live run
    ├── OtherProcessError (RuntimeError)   another process of a run of several failed; its exit code
    └── Stopped         (RuntimeError)     128 + signal number: 130 SIGINT, 138 SIGUSR1, 143 SIGTERM
        └── ReaderGone                     141: nobody reads what the command prints, as in cryoplug ... | head -1

Exit code 3 (finished, some inputs failed) is a result, not an error: see `cryoplug.core.results`.
A message names the path or field, what was found, what is allowed, and what to do next.
"""

from __future__ import annotations

import signal


class CryoplugError(Exception):
    """Base of all errors that cryoplug raises on purpose."""

    exit_code = 1


class UsageError(CryoplugError, ValueError):
    """A flag, a configuration field or their combination is wrong."""

    exit_code = 2


class InputError(CryoplugError, ValueError):
    """An input cannot be used."""

    exit_code = 4


class MissingInputError(InputError, FileNotFoundError):
    """A file that was named is not there."""


class FormatError(InputError):
    """A file is damaged, or of a kind that cryoplug does not read."""


class SeveralImagesError(FormatError):
    """A stack, movie or volume, where a single image is needed."""


class ShapeError(InputError):
    """Sizes that must agree do not."""


class PairingError(InputError):
    """Noisy and clean, or even and odd, do not belong together."""


class PixelError(InputError):
    """Pixels that no network can use: not finite, or all equal."""


class StorageError(CryoplugError, OSError):
    """Writing or reading failed: disk full, read-only, no permission, I/O error."""

    exit_code = 5


class DivergedError(CryoplugError, ArithmeticError):
    """Training produced a loss or weights that are not finite."""

    exit_code = 6


class DeviceError(CryoplugError, RuntimeError):
    """The device is missing or out of memory."""

    exit_code = 7


class OutputBusyError(CryoplugError, RuntimeError):
    """The output belongs to another run that is still alive."""

    exit_code = 8


class OtherProcessError(CryoplugError, RuntimeError):
    """Another process of a run of several processes failed, so this one ends, too.

    Parameters
    ----------
    message
        What is known about the failure.
    exit_code
        Exit code of the other process.
    said
        Whether another process has already printed the error, so that this one prints nothing.
    """

    def __init__(self, message: str, exit_code: int = 1, *, said: bool = False) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.said = said


class Stopped(CryoplugError, RuntimeError):
    """A signal asked for an end; everything finished so far is safe on disk.

    Parameters
    ----------
    signal_number
        The signal that arrived; the exit code is 128 plus it.
    message
        What is safe, and how to go on.
    """

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}: {message}")
        self.exit_code = 128 + signal_number


class ReaderGone(Stopped):
    """The reader of the command's output has gone, as ``head -1`` does after one line; the command ends without a message."""

    def __init__(self) -> None:
        super().__init__(signal.SIGPIPE, "nobody reads the output any more")


def not_allowed(flag: str, value: object, allowed: str) -> str:
    """Write the error for a value that an option does not allow: the same words in every command and in Python."""
    return f"{flag} {value!r} (allowed: {allowed})"
