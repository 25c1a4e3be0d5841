"""Runs before the command in processes of `faults.every_call`: it makes one call of a system function go wrong.

``FAULTS_CALL=fsync:EIO:3:MARKER`` lets the third `os.fsync` fail with EIO; ``KILL`` kills the process there; ``3+`` means
the third and all later ones. When it happens, the file named last is made.
"""

import errno
import os
import signal
import threading

_NAME, _WHAT, _WHEN, _MARKER = os.environ["FAULTS_CALL"].split(":", 3)
_REAL = getattr(os, _NAME)
_NUMBER, _AND_LATER = int(_WHEN.rstrip("+")), _WHEN.endswith("+")
_LOCK = threading.Lock()
_count = 0


def _call(*arguments, **named):
    global _count
    with _LOCK:
        _count += 1
        hit = _count == _NUMBER or (_AND_LATER and _count > _NUMBER)
    if not hit:
        return _REAL(*arguments, **named)
    os.close(os.open(_MARKER, os.O_WRONLY | os.O_CREAT))
    if _WHAT == "KILL":
        os.kill(os.getpid(), signal.SIGKILL)
    number = getattr(errno, _WHAT)
    raise OSError(number, os.strerror(number))


setattr(os, _NAME, _call)
