"""The state of one run: which process works on which micrograph, what is finished, and each result."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryoplug.core.pixel_size import PixelSizeRemarks
from cryoplug.core.remarks import joined
from cryoplug.core.results import FileResult
from cryoplug.core.thumbnail import BeforeAfter
from cryoplug.disk.atomic import storage_errors
from cryoplug.disk.claims import Claims, Owner
from cryoplug.disk.file_state import FileState, file_state
from cryoplug.errors import CryoplugError, StorageError, UsageError
from cryoplug.inference.messages import DenoiseJob, DenoiseResult
from cryoplug.inputs.pairing import no_halves
from cryoplug.outputs.journal import Journal
from cryoplug.outputs.planning import PlannedOutput
from cryoplug.outputs.records import (
    OutputRecord,
    Settings,
    begin_output,
    finished_record,
    is_finished,
    new_record,
    read_record,
    write_record,
)
from cryoplug.workflows.denoise.previews import Previews
from cryoplug.workflows.denoise.request import unsaid

Progress = Callable[[FileResult], None]
Note = Callable[[str], None]
RecordsBefore = dict[Path, FileState | None]
"""State of each output's record when a run with ``overwrite`` began. All processes of the run share it, so that none repeats
what another one has just finished."""


@dataclass(frozen=True)
class Sibling:
    """One of the processes of a run, as it knows the run."""

    before: RecordsBefore
    """What was there before the run."""
    number: int = 0
    """Its own number, from 0."""
    count: int = 1
    """Number of all processes."""

    def in_order(self, todo: Sequence[PlannedOutput]) -> list[PlannedOutput]:
        """Put a list in the order in which this process takes it: its own part, then those of the others, as they take them.

        Whoever is done helps the next one, and whatever a killed process leaves is found.
        """
        parts = (todo[(self.number + step) % self.count :: self.count] for step in range(self.count))
        return [item for part in parts for item in part]


WAIT_POLL_S = 1.0
"""Seconds between two looks at the work of other processes."""
SIBLING_POLL_S = 0.1
"""The same between the processes of one run, which all end within a moment."""
_STEP_S = 0.1


class Work:
    """The state that the threads of a run share.

    Parameters
    ----------
    settings
        Everything that determines the pixels, except the input.
    overwrite
        Denoise again what an earlier run finished.
    claims
        The claims of this process.
    journal
        Gets a line for each micrograph that is worked on.
    progress
        Called with every result, from one thread at a time.
    before
        The records from before the run, if this process is one of several of a run.
    stated_angstrom
        Pixel size of all micrographs, as the user states it.
    previews
        Makes the picture of each micrograph; None: no pictures.
    taken
        Called with every output and its result, from the same threads as `progress`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        overwrite: bool,
        claims: Claims,
        journal: Journal,
        progress: Progress,
        before: RecordsBefore | None = None,
        stated_angstrom: float | None = None,
        previews: Previews | None = None,
        taken: Callable[[Path, FileResult], None] = lambda target, result: None,
    ) -> None:
        self.results: dict[Path, FileResult] = {}
        """The last result of each micrograph, by its output file."""
        self.in_work: set[Path] = set()
        """Output files that are being worked on and have no result yet."""
        self.pixel_sizes = PixelSizeRemarks()
        """Collects the cases in which sources of the pixel size differ."""
        self._settings = settings
        self._stated_angstrom = stated_angstrom
        self._overwrite = overwrite
        self._claims = claims
        self._previews = previews
        self._taken = taken
        self._looks: dict[Path, tuple[BeforeAfter, float | None]] = {}
        self._journal = journal
        self._progress = progress
        self._items: dict[Path, tuple[PlannedOutput, OutputRecord]] = {}
        self.before: RecordsBefore = dict(before or {})
        self._lock = threading.Lock()

    def is_to_do(self, item: PlannedOutput) -> bool:
        """Tell whether a micrograph is to be denoised; if not, its result says why."""
        if self._overwrite:
            self.before.setdefault(item.target, file_state(item.record))
            return True
        try:
            if not is_finished(item, self._settings, unsaid=unsaid()):
                return True
        except UsageError as error:
            self.fail(item, error)
            return False
        self._skip(item, "finished by an earlier run; --overwrite redoes it")
        self._remove_dead_claim(item)
        return False

    def claim(self, item: PlannedOutput) -> DenoiseJob | Owner | None:
        """Try to get a micrograph for this process.

        Returns
        -------
        DenoiseJob | Owner | None
            A job to do now; or the process that already works on it; or None if nothing is left to do.
        """
        if self._settings["halves"] == "yes" and not item.micrograph.has_halves:
            self.fail(item, no_halves(item.micrograph))
            return None
        # Looked at before and after: claiming costs two trips to the disk, and until it is ours it may be finished.
        if self._is_done_meanwhile(item):
            return None
        owner = self._claims.take(item.claim)
        if owner is not None:
            return owner
        if self._is_done_meanwhile(item):
            self._claims.release(item.claim)
            return None
        micrograph = item.micrograph
        halves = None
        if self._settings["halves"] == "yes":
            assert micrograph.even is not None and micrograph.odd is not None
            halves = micrograph.even, micrograph.odd
        # Taken before anything is read: a micrograph that changes meanwhile is redone by the next run.
        self._items[item.target] = item, new_record(item, self._settings)
        self.in_work.add(item.target)
        return DenoiseJob(
            micrograph.path,
            item.target,
            micrograph.pixel_size_angstrom,
            micrograph.section,
            is_stack=micrograph.is_stack,
            last_section=micrograph.last_section,
            halves=halves,
            stated_angstrom=self._stated_angstrom,
        )

    def begin(self, job: DenoiseJob) -> None:
        """Record on the disk that an output is being written."""
        beside = [] if self._previews is None else [self._previews.path_of(job.target)]
        begin_output(*self._items[job.target], beside=beside)

    def look(self, job: DenoiseJob, both: BeforeAfter, pixel_size_angstrom: float | None) -> None:
        """Keep thumbnails of a micrograph until it is finished."""
        self._looks[job.target] = both, pixel_size_angstrom

    def finish(self, job: DenoiseJob, result: DenoiseResult) -> None:
        """Keep the result of a job, and release its claim."""
        item, record = self._items.pop(job.target)
        both, pixel_size_angstrom = self._looks.pop(job.target, (None, None))
        result = replace(result, input=item.shown)
        if result.status == "done":
            with storage_errors(job.target):
                size_bytes = job.target.stat().st_size
            # Before the record: a run that is killed in between makes both anew.
            if self._previews is not None and (remark := self._previews.make(item, both, pixel_size_angstrom)):
                result = replace(result, message=joined((result.message, remark)))
            used = None if result.pixel_size is None else result.pixel_size.angstrom
            write_record(item.record, finished_record(record, size_bytes, used))
        self._journal.append(result)
        self._claims.release(item.claim)
        self._report(job.target, result)
        self.in_work.discard(job.target)

    def fail(self, item: PlannedOutput, error: CryoplugError) -> None:
        """Record that a micrograph cannot be denoised."""
        self._fail(item.target, item.shown, error)

    def refuse(self, path: Path, error: CryoplugError) -> None:
        """Record that a micrograph gets no output."""
        self._fail(path, path, error)

    def take_over(self, item: PlannedOutput, result: FileResult) -> None:
        """Keep a result of another process of this run; a skip counts only if there is no result yet."""
        if result.status != "skipped" or item.target not in self.results:
            self._report(item.target, result)

    def _fail(self, key: Path, shown: Path, error: CryoplugError) -> None:
        result = FileResult(shown, "failed", None, str(error), 0.0, error.exit_code)
        self._journal.append(result)
        self._report(key, result)

    def _skip(self, item: PlannedOutput, message: str) -> None:
        self._report(item.target, FileResult(item.shown, "skipped", item.target, message))

    def _report(self, target: Path, result: FileResult) -> None:
        with self._lock:
            self.results[target] = result
            if isinstance(result, DenoiseResult):
                self.pixel_sizes.add(result.pixel_size)
            self._taken(target, result)
            self._progress(result)

    def _remove_dead_claim(self, item: PlannedOutput) -> None:
        """Remove what a process left that was killed after its last micrograph was finished."""
        with contextlib.suppress(StorageError):  # nothing depends on it
            if item.claim.exists() and self._claims.take(item.claim) is None:
                self._claims.release(item.claim)

    def _is_done_meanwhile(self, item: PlannedOutput) -> bool:
        """Tell whether another process has done it since `is_to_do`; the result is kept then."""
        if self._overwrite and file_state(item.record) == self.before.get(item.target):
            return False
        try:
            finished = is_finished(item, self._settings, unsaid=unsaid())
        except UsageError as error:
            if self._overwrite:
                return False
            self.fail(item, error)
            return True
        if finished:
            record = read_record(item.record)
            who = f"process {record.pid} on {record.host}" if record is not None else "another process"
            self._skip(item, f"done by {who}")
        return finished


def shared_jobs(
    work: Work,
    todo: Sequence[PlannedOutput],
    should_stop: Callable[[], bool],
    note: Note,
    *,
    poll_s: float = WAIT_POLL_S,
) -> Iterator[DenoiseJob]:
    """Hand out micrographs that no other process works on; at the end, wait for the others and take what they leave."""
    waiting = list(todo)
    told: set[str] = set()
    while waiting and not should_stop():
        others: list[PlannedOutput] = []
        for item in waiting:
            if should_stop():
                return
            got = work.claim(item)
            if isinstance(got, DenoiseJob):
                yield got
            elif got is not None:
                others.append(item)
                if str(got) not in told:
                    told.add(str(got))
                    note(f"{got} works on this output folder too; its micrographs are left to it")
        waiting = others
        if waiting:
            pause(poll_s, should_stop)


def pause(seconds: float, should_stop: Callable[[], bool]) -> None:
    """Sleep for some seconds; wake up early when a stop is asked for."""
    end = time.monotonic() + seconds
    while not should_stop() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _STEP_S))
