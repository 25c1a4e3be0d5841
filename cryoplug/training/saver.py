"""When a run saves its state: when it is time, when a signal asks for it, and when a signal ends the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cryoplug.errors import Stopped
from cryoplug.machine.interrupts import Interrupts
from cryoplug.training.config import TrainConfig
from cryoplug.training.progress import Note, Progress
from cryoplug.training.schedule import is_done
from cryoplug.training.state import Position


class Saver:
    """Save when it is time or when asked, and end when a signal says so.

    Parameters
    ----------
    interrupts
        Tells whether a signal came.
    progress
        Called with what the user should know.
    save
        Saves the state; does nothing for a run that is not saved.
    position
        Where the run is; the loop advances it.
    config
        Of the run.
    saved
        Whether `save` does something.
    """

    def __init__(
        self,
        interrupts: Interrupts,
        progress: Progress,
        *,
        save: Callable[[], None],
        position: Position,
        config: TrainConfig,
        saved: bool,
    ) -> None:
        self._interrupts = interrupts
        self._progress = progress
        self._save_state = save
        self._position = position
        self._config = config
        self._saved = saved
        self._interval_s = 60.0 * config.checkpoint_minutes
        self._last = time.monotonic()
        self._lock = threading.Lock()
        self._stopped: Stopped | None = None

    def look_at_signals(self) -> None:
        """Save when asked, and end when told to; also from within a batch, when weights are those of the batch before."""
        interrupts = self._interrupts
        with self._lock:  # the pieces of a batch are computed in several threads
            if self._stopped is None and interrupts.stop_signal is not None:
                self._save_state()
                saved = f"the state of {self._where()} is saved; the same command goes on from there"
                found = saved if self._saved else "nothing was saved (no --save)"
                self._stopped = Stopped(interrupts.stop_signal, found)
            if self._stopped is not None:
                raise self._stopped
            if interrupts.save_requested:
                interrupts.save_requested = False
                self._save()
                self._progress(Note(f"state of {self._where()} saved" if self._saved else "not saved: no --save"))

    def _where(self) -> str:
        return f"epoch {self._position.epoch}, batch {self._position.batch}"

    def after_batch(self) -> None:
        """Look at signals, and save when the interval is over."""
        self.look_at_signals()
        if self._interval_is_over():
            self._save()

    def is_due(self) -> bool:
        """Tell whether `after_batch` would save now: then no step may be under way."""
        asked = self._interrupts.save_requested or self._interrupts.stop_signal is not None
        return asked or self._interval_is_over()

    def _interval_is_over(self) -> bool:
        return time.monotonic() - self._last >= self._interval_s

    def after_epoch(self) -> None:
        """Begin the interval anew, for an epoch ends with a save; end when a signal came and work is left."""
        self._last = time.monotonic()
        stop = self._interrupts.stop_signal
        if stop is not None and not is_done(self._position, self._config):
            self.look_at_signals()

    def _save(self) -> None:
        self._save_state()
        self._last = time.monotonic()
