"""Run one input of a target and say whether it kept the promise: a refusal or a result, in a second and 100 MB."""

from __future__ import annotations

import resource
import tempfile
import time
import traceback
from pathlib import Path

from cryoplug.errors import CryoplugError
from fuzz.targets import Target

MAX_SECONDS = 1.0
MAX_BYTES = 100_000_000
_ADDRESS_SPACE_BYTES = 1 << 30
"""An array that is made and never touched costs no memory that the kernel counts; it ends here."""


class BrokenPromise(Exception):
    """An input that cryoplug did not survive as it says it does."""


def check(target: Target, payload: bytes) -> None:
    """Run an input.

    Parameters
    ----------
    target
        What reads it.
    payload
        The content of the file.

    Raises
    ------
    BrokenPromise
        Says what happened, with the traceback.
    """
    with tempfile.TemporaryDirectory(prefix="cryoplug-fuzz-") as folder:
        _reset_peak()
        before, start = _status_bytes("VmRSS"), time.process_time()
        try:
            target.run(Path(folder), payload)
        except CryoplugError as error:
            message = str(error)
            if len(message) > 5000 or folder not in message:
                raise BrokenPromise(f"an error without its path, or endless: {message[:300]!r}") from error
        except Exception as error:  # any other one is what is looked for
            raise BrokenPromise("".join(traceback.format_exception(error))) from error
        seconds, grown = time.process_time() - start, _status_bytes("VmHWM") - before
    if seconds > MAX_SECONDS:
        raise BrokenPromise(f"took {seconds:.1f} s of processor time (allowed: {MAX_SECONDS} s)")
    if grown > MAX_BYTES:
        raise BrokenPromise(f"took {grown / 1e6:.0f} MB (allowed: {MAX_BYTES / 1e6:.0f} MB)")


def limit_address_space() -> None:
    """Let allocations beyond a gigabyte more than now fail in this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_status_bytes("VmSize") + _ADDRESS_SPACE_BYTES, hard))


def _reset_peak() -> None:
    # Linux: 5 sets the peak of the resident memory back to what it is now.
    Path("/proc/self/clear_refs").write_text("5")


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)
