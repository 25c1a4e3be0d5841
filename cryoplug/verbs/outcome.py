"""The result of a verb: written files, failures with reasons, and the remarks that the command would have printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from cryoplug.core.remarks import separate
from cryoplug.core.results import EXIT_PARTIAL, BatchResult, FileResult
from cryoplug.errors import CryoplugError, DeviceError, InputError, StorageError, UsageError

_MOST_SHOWN = 5
"""Most failures, and most remarks, in the printed text; the record has all of them."""
Progress: TypeAlias = Callable[[FileResult], object]
"""Called with the result of each file, as it comes."""
Note: TypeAlias = Callable[[str], object]
"""Called with each remark, a sentence, that does not belong to a single file."""


@dataclass(frozen=True, repr=False)
class Outcome:
    """The result of a call; ``print(outcome)`` shows it in a few lines."""

    files: tuple[FileResult, ...]
    """One record for each input, in input order: done, skipped (finished by an earlier run), or failed."""
    outputs: tuple[Path, ...]
    """Files that now exist under their final names: a denoised or simulated micrograph for each input that did not fail, in
    input order; for an evaluation, its figures and tables."""
    lists: tuple[Path, ...] = ()
    """Files that list all outputs: a STAR file, a cryoSPARC dataset."""
    page: Path | None = None
    """The page to open in a browser."""
    remarks: tuple[str, ...] = ()
    """Remarks on the data and on the run; one sentence each."""
    exit_code: int = 0
    """Exit code of the command: 0 all done, 3 some inputs failed, 1 an evaluation is not better than required. For any other
    code, Python raises an error."""
    details: dict[str, Any] = field(default_factory=dict)
    """Facts on the whole run, as in the command's ``--json``."""

    @property
    def failures(self) -> tuple[FileResult, ...]:
        """The inputs that failed; ``message`` says why. A failed input never stops the others."""
        return tuple(item for item in self.files if item.status == "failed")

    def raise_for_failures(self) -> None:
        """Raise `InputError` if an input failed; its message names each of them."""
        if self.failures:
            raise InputError("\n".join(map(_why, self.failures)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {_counts(self.files)}>"

    def __str__(self) -> str:
        lines = [_counts(self.files)]
        lines += _first([f"failed: {_why(item)}" for item in self.failures])
        lines += [f"wrote: {path}" for path in (*self.lists, *filter(None, [self.page]))]
        return "\n".join([*lines, *_first([f"remark: {text}" for text in self.remarks])])


def _why(failure: FileResult) -> str:
    name = f"{failure.input}: "
    return name + failure.message.removeprefix(name)


def _first(lines: list[str]) -> list[str]:
    more = len(lines) - _MOST_SHOWN
    return [*lines[:_MOST_SHOWN], f"and {more} more"] if more > 0 else lines


def _counts(files: Sequence[FileResult]) -> str:
    counts = {status: sum(item.status == status for item in files) for status in ("done", "skipped", "failed")}
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "nothing to do"


def outputs_of(batch: BatchResult) -> tuple[Path, ...]:
    """Give the file that was written for each input that did not fail."""
    return tuple(item.output for item in batch.files if item.status != "failed" and item.output is not None)


def remarks_of(batch: BatchResult, notes: Sequence[str]) -> tuple[str, ...]:
    """Give the notes of a run, then the remarks on each finished micrograph, with its name."""
    of_files = (
        f"{item.input}: {remark}" for item in batch.files if item.status == "done" for remark in separate(item.message)
    )
    return (*notes, *of_files)


_ERRORS: dict[int, type[CryoplugError]] = {error.exit_code: error for error in (UsageError, StorageError, DeviceError)}


def check_usable(batch: BatchResult) -> None:
    """If no input at all could be used, raise the error of the command; if some could, do nothing.

    Raises
    ------
    InputError
        No input could be used; the message gives the reasons for the first few.
    StorageError, DeviceError
        All inputs failed for that reason.
    """
    failed = batch.failed
    # Who watches is content with what failed so far, and exits with 3: more may come.
    if not failed or len(failed) < len(batch.files) or batch.exit_code == EXIT_PARTIAL:
        return
    raise _ERRORS.get(batch.exit_code, InputError)("\n".join(_first([_why(item) for item in failed])))


class Notes:
    """Keeps every remark of a run for its outcome, and passes it on to the caller.

    Parameters
    ----------
    further
        The caller's function; None only keeps remarks.
    """

    def __init__(self, further: Note | None) -> None:
        self.kept: list[str] = []
        self._further = further

    def take(self, text: str) -> None:
        """Keep a remark, and pass it on."""
        self.kept.append(text)
        if self._further is not None:
            self._further(text)


def reporting(progress: Progress | None) -> Callable[[FileResult], None]:
    """Give the function that a workflow calls with each record: the caller's, or one that does nothing."""

    def report(result: FileResult) -> None:
        if progress is not None:
            progress(result)

    return report
