"""Disks that fail for a moment: a network disk that refuses to read now often works a second later."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

PASSING = frozenset({errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EREMOTEIO})
"""Errors that a server's restart, a moved file or a lost packet cause, and that may be gone at the next try."""
PAUSES_S = (0.2, 1.0, 4.0)
"""Seconds of pause before each further try: a lost file must not cost minutes, a lost packet must not cost the file."""

Result = TypeVar("Result")


def retried(action: Callable[[], Result], *, again: Callable[[], object] | None = None) -> Result:
    """Read from a disk; try again after errors that may pass.

    Parameters
    ----------
    action
        Reads; called until it succeeds, four times at most.
    again
        Called before each further try, such as to open a file anew whose handle went stale.

    Raises
    ------
    OSError
        The error of `action`, if it cannot pass, or did not pass.
    """
    try:
        return action()
    except OSError as error:
        if not _may_pass(error):
            raise
        last = error
    for pause_s in PAUSES_S:
        time.sleep(pause_s)
        try:
            if again is not None:
                again()
            return action()
        except OSError as error:
            if not _may_pass(error):
                raise
            last = error
    raise last


def _may_pass(error: OSError) -> bool:
    # An error of cryoplug has no number of its own, but was raised from one that has.
    source = error if error.errno is not None else error.__cause__
    return isinstance(source, OSError) and source.errno in PASSING
