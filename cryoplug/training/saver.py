"""When a run saves its state: after an interval, when a signal asks for it, and when a signal ends the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cryoplug.errors import CryoplugError, Stopped
from cryoplug.machine.interrupts import Interrupts
from cryoplug.training.config import TrainConfig
from cryoplug.training.distributed import ALONE, Processes
from cryoplug.training.progress import Note, Progress
from cryoplug.training.schedule import is_done
from cryoplug.training.state import Position


@dataclass(frozen=True)
class _Asked:
    """What the processes together were asked to do."""

    stop: int | None
    """The signal that asked for an end; None if none came."""
    save: bool
    """Whether a save was asked for."""
    due: bool = False
    """Whether the interval is over."""


class Saver:
    """Saves after an interval or on a signal, and ends the run on a signal.

    Parameters
    ----------
    interrupts
        Knows which signals came.
    progress
        Called with remarks for the user.
    save
        Saves the state; does nothing for a run that is not saved.
    position
        Position of the run; the loop advances it.
    config
        Settings of the run.
    saved
        Whether `save` does something.
    processes
        The processes that train together: all end, and save, at the same step.
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
        processes: Processes = ALONE,
    ) -> None:
        self._interrupts = interrupts
        self._progress = progress
        self._save_state = save
        self._position = position
        self._config = config
        self._saved = saved
        self._processes = processes
        self._interval_s = 60.0 * config.checkpoint_minutes
        self._last = time.monotonic()
        self._lock = threading.Lock()
        self._saved_early = False
        self._stopped: CryoplugError | None = None

    def look_at_signals(self) -> None:
        """Within a batch, save or end if a signal asks for it; the weights are those after the batch before.

        Several processes end together after the batch, so that none leaves the others waiting. But the state is saved at
        once, because a queue may not wait for the end of the batch.
        """
        with self._lock:  # the pieces of a batch are computed in several threads
            if self._processes.world == 1:
                self._obey(self._asked())
            elif self._interrupts.stop_signal is not None and not self._saved_early:
                self._saved_early = True
                self._save_state()

    def after_batch(self) -> None:
        """Look at signals, and save if the interval is over."""
        asked = self._asked()
        self._obey(asked)
        if asked.due:
            self._save()

    def is_due(self) -> bool:
        """Say whether `after_batch` would save now; then no step may be in progress.

        Several processes ask one another only every few steps, when no step is in progress.
        """
        asked = self._interrupts.save_requested or self._interrupts.stop_signal is not None
        return self._processes.world == 1 and (asked or self._interval_is_over())

    def after_epoch(self) -> None:
        """Start a new interval, because an epoch ends with a save; end if a signal came and work is left."""
        self._last = time.monotonic()
        asked = self._asked()
        if (asked.save or asked.stop) and not is_done(self._position, self._config):
            self._obey(asked)

    def _asked(self) -> _Asked:
        """Combine the signals of all processes, and the clock of the first one."""
        stop, save = self._interrupts.stop_signal, self._interrupts.save_requested
        due = self._interval_is_over() and self._processes.first
        stop_of_all, *others = self._processes.largest([stop or 0, int(save), int(due)])
        if save:
            self._interrupts.save_requested = False
        return _Asked(stop_of_all or None, *map(bool, others))

    def _interval_is_over(self) -> bool:
        return time.monotonic() - self._last >= self._interval_s

    def _obey(self, asked: _Asked) -> None:
        if self._stopped is None and asked.stop is not None:
            self._save_state()
            saved = f"the state of {self._where()} is saved; the same command goes on from there"
            found = saved if self._saved else "nothing was saved (no --save)"
            self._stopped = self._processes.said_by_first(Stopped(asked.stop, found))
        if self._stopped is not None:
            raise self._stopped
        if asked.save:
            self._save()
            self._progress(Note(f"state of {self._where()} saved" if self._saved else "not saved: no --save"))

    def _where(self) -> str:
        return f"epoch {self._position.epoch}, batch {self._position.batch}"

    def _save(self) -> None:
        self._save_state()
        self._last = time.monotonic()
