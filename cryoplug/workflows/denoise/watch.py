"""Watch for new micrographs, and hand out those that are complete.

Network disks do not report new files, so the folders, patterns and STAR files are read again at every look. A source that
cannot be read now (a folder that does not exist yet, a half-written STAR file) is tried again at the next look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryoplug.core.results import EXIT_PARTIAL, BatchResult
from cryoplug.disk.file_state import FileState
from cryoplug.errors import FormatError, InputError, MissingInputError, StorageError, UsageError
from cryoplug.inference.messages import DenoiseJob
from cryoplug.inputs.completeness import Settling, missing_bytes
from cryoplug.inputs.discovered import DiscoveredMicrograph, whole_stacks
from cryoplug.inputs.discovery import discover, find
from cryoplug.outputs.planning import OutputPlanner, PlannedOutput, without_own_outputs
from cryoplug.workflows.denoise.request import DenoiseRequest
from cryoplug.workflows.denoise.work import Note, Work, pause

LOOKED_AT_AGAIN = 1000
"""Most finished micrographs that one look checks again; a network disk gives some thousand answers a second."""
_SHOWN = 8
_Key = tuple[Path, int | None]


@dataclass(frozen=True)
class WatchResult(BatchResult):
    """The results of all micrographs that were seen while watching; no micrographs is no failure."""

    @property
    def exit_code(self) -> int:
        """0, or 3 when some micrographs failed."""
        return EXIT_PARTIAL if self.failed else 0


@dataclass
class _Known:
    """A micrograph that a look has found."""

    item: PlannedOutput
    dealt_with: FileState | None = None
    """State of the file when it was last denoised, skipped or refused; None: not yet."""

    def is_new(self, state: FileState, *, failed: bool) -> bool:
        """Tell whether the file has changed since it was last denoised, skipped or refused.

        A failed micrograph is tried again after any change; a finished one only if its content changed.
        """
        if self.dealt_with is None or failed:
            return state != self.dealt_with
        return state.content != self.dealt_with.content


class Watch:
    """Finds the micrographs of a request as they arrive.

    Parameters
    ----------
    request
        The request: what to watch, and how often.
    work
        Gets the result of every micrograph that is not denoised.
    planner
        Chooses the output names of new micrographs.
    note
        Called once with each sentence about the files that the run waits for.
    after_look
        Called after every look, in the thread that takes the jobs; for example to write a STAR file.
    """

    def __init__(
        self, request: DenoiseRequest, work: Work, planner: OutputPlanner, note: Note, after_look: Callable[[], object]
    ) -> None:
        self._request = request
        self._work = work
        self._planner = planner
        self._note = note
        self._after_look = after_look
        self._settling = Settling(request.settle_s)
        self._known: dict[_Key, _Known] = {}
        self._listed: list[_Key] = []
        self._refused: set[_Key] = set()
        self._noted: set[str] = set()
        self._turn = 0
        self._changed: set[_Key] = set()
        self._last_event = time.monotonic()
        self._is_settling = False
        self.waiting: list[str] = []
        """Sentences about the files that the last look found but that are not complete yet."""
        self.companions: tuple[Path, ...] = ()
        """Files that the last look left out because they only accompany a micrograph."""

    @property
    def planned(self) -> list[PlannedOutput]:
        """All micrographs seen so far, in order of arrival."""
        return [known.item for known in self._known.values()]

    def waiting_for(self) -> tuple[str, ...]:
        """Give sentences about the files that the run waits for, the most important first; empty while there is work."""
        if self._work.in_work:
            return ()
        limit = self._request.idle_exit_s
        end = "" if limit is None else f" (ends when none comes for {limit:g} s)"
        return (*self.waiting, f"new micrographs may come{end}")

    def jobs(self, should_stop: Callable[[], bool]) -> Iterator[DenoiseJob]:
        """Hand out micrographs until none has arrived for the time that the request sets, or until a stop is asked for."""
        while not should_stop():
            looked = time.monotonic()
            ready = self._look()
            self._after_look()
            for known, state in ready:
                if should_stop():
                    return
                if time.monotonic() - looked > max(self._request.poll_s, 1.0):
                    break  # the rest is found again, with what has come meanwhile
                path = known.item.micrograph.path
                if missing := missing_bytes(path):
                    self.waiting.append(f"{path.name} lacks {missing} bytes")
                    self._say(f"{path}: lacks {missing} bytes; waiting for it to become complete")
                    continue
                got = self._work.claim(known.item)
                if isinstance(got, DenoiseJob):
                    known.dealt_with = state
                    yield got
                elif got is not None:
                    self._say(f"{got} works on this output folder too; its micrographs are left to it")
                else:
                    known.dealt_with = state
                self._last_event = time.monotonic()
            else:
                if self._is_over(looked):
                    return
                pause(self._pause_s(), should_stop)

    def give_up_waiting(self) -> None:
        """Record a failure for each file that was named but never arrived or never became complete."""
        for key in self._listed:
            item = self._known[key].item
            if item.target in self._work.results:
                continue
            path = item.micrograph.path
            missing = missing_bytes(path)
            if missing:
                self._work.fail(item, FormatError(f"{path}: still lacks {missing} bytes; it never became complete"))
            elif not path.exists():
                self._work.fail(item, MissingInputError(f"{path}: there is no such file; it never came"))

    def _look(self) -> list[tuple[_Known, FileState]]:
        """Search all sources again; give the micrographs that are complete and to be denoised."""
        if self._work.in_work:
            self._last_event = time.monotonic()
        self._take_in(self._discover())
        ready: list[tuple[_Known, FileState]] = []
        unsettled: list[Path] = []
        for key in self._to_look_at():
            known = self._known[key]
            result = self._work.results.get(known.item.target)
            state, stands_still = self._settling.look(known.item.micrograph.path)
            if result is not None and known.dealt_with is None:
                known.dealt_with = state  # skipped or refused before it was looked at
            if state is None or not known.is_new(state, failed=result is None or result.status == "failed"):
                self._changed.discard(key)
                continue
            if result is not None:
                self._changed.add(key)
            if stands_still:
                ready.append((known, state))
            else:
                unsettled.append(known.item.micrograph.path)
                self._last_event = time.monotonic()
        self._is_settling = bool(unsettled)
        self.waiting = self._waiting_for(unsettled, len(ready))
        return ready

    def _waiting_for(self, unsettled: Sequence[Path], ready: int) -> list[str]:
        texts = [f"{ready} complete micrographs are next"] if ready > 1 else []
        texts += [f"{path.name} must stand still for {self._request.settle_s:g} s" for path in unsettled[:_SHOWN]]
        if len(unsettled) > _SHOWN:
            texts.append(f"and {len(unsettled) - _SHOWN} more that are being written")
        return texts

    def _to_look_at(self) -> list[_Key]:
        """Give the micrographs to check: all unfinished ones, and in turn some finished ones, whose files may have changed."""
        work = self._work
        free = [key for key in self._listed if self._known[key].item.target not in work.in_work]
        finished: list[_Key] = []
        wanted: list[_Key] = []
        for key in free:
            result = work.results.get(self._known[key].item.target)
            is_finished = result is not None and result.status != "failed" and key not in self._changed
            (finished if is_finished else wanted).append(key)
        if len(finished) <= LOOKED_AT_AGAIN:
            return wanted + finished
        start = self._turn % len(finished)
        self._turn = start + LOOKED_AT_AGAIN
        return wanted + (finished + finished)[start : start + LOOKED_AT_AGAIN]

    def _take_in(self, found: Sequence[DiscoveredMicrograph]) -> None:
        listed = []
        for micrograph in found:
            key = (micrograph.path.absolute(), micrograph.section)
            # Its name below the output folder stays as it was chosen when it came.
            if key in self._known or (key not in self._refused and self._plan(key, micrograph)):
                listed.append(key)
        self._listed = listed

    def _plan(self, key: _Key, micrograph: DiscoveredMicrograph) -> bool:
        self._last_event = time.monotonic()
        try:
            (item,) = self._planner.add([micrograph])
        except UsageError as error:
            self._refused.add(key)
            self._work.refuse(micrograph.path, error)
            return False
        self._known[key] = _Known(item)
        self._work.is_to_do(item)
        return True

    def _discover(self) -> list[DiscoveredMicrograph]:
        request = self._request
        found: list[DiscoveredMicrograph] = []
        try:
            found = self._find(request.inputs)
        except (InputError, StorageError, OSError) as error:
            # One of the inputs is not there or not readable now; the others are.
            self._say(f"waiting: {error}")
            good = [text for text in request.inputs if self._can_be_read(text)]
            try:
                found = self._find(good) if good else []
            except (InputError, StorageError, OSError):
                found = []  # it went between the two looks
        return without_own_outputs(found, request.output, named=request.inputs)

    def _find(self, inputs: Sequence[str]) -> list[DiscoveredMicrograph]:
        found = find(inputs)
        self.companions = found.companions
        if found.companions:
            # Without the number, which grows with every exposure; that is told at the end.
            self._say("files that only accompany a micrograph (halves, X_DW, X_noDW, X_PS, masks) are left out")
        return whole_stacks(found.micrographs)

    def _can_be_read(self, text: str) -> bool:
        try:
            discover([text])
        except (InputError, StorageError, OSError) as error:
            self._say(f"waiting: {error}")
            return False
        return True

    def _is_over(self, looked: float) -> bool:
        """Tell whether nothing new has arrived for long enough, as of the look that began at `looked`.

        A look can take long on a busy machine. Files that arrived meanwhile are found by the next look, and a file that
        must first stay unchanged is still taken.
        """
        limit = self._request.idle_exit_s
        if self._work.in_work:
            self._last_event = time.monotonic()
        return limit is not None and not self._is_settling and looked - self._last_event >= limit

    def _pause_s(self) -> float:
        limit = self._request.idle_exit_s
        left = self._request.poll_s
        if limit is not None:
            left = min(left, max(0.05, limit - (time.monotonic() - self._last_event)))
        return max(0.05, left)

    def _say(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self._note(text)
