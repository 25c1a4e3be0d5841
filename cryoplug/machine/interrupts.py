"""Signals during long work: the handler only sets a flag; the work looks at it between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_STOP = (signal.SIGTERM, signal.SIGINT)
_SAVE = (signal.SIGUSR1,) if hasattr(signal, "SIGUSR1") else ()


class Interrupts:
    """While the block runs, SIGTERM and SIGINT ask for an end, SIGUSR1 for a save.

    Outside the main thread nothing is installed: Python delivers signals to the main thread alone.
    """

    def __init__(self) -> None:
        self.stop_signal: int | None = None
        """The signal that asked for an end; None if none came."""
        self.save_requested = False
        """Whether a save was asked for; the code that saves resets it."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (*_STOP, *_SAVE):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number in _SAVE:
            self.save_requested = True
        else:
            self.stop_signal = number
