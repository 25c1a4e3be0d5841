"""What a verb hands back: what was written, what failed and why, and what the command would have said on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from cryoplug.core.remarks import separate
from cryoplug.core.results import EXIT_PARTIAL, BatchResult, FileResult
from cryoplug.errors import CryoplugError, DeviceError, InputError, StorageError, UsageError

_MOST_SHOWN = 5
"""Failures, and remarks, that a text for people has; the records have all."""
Progress: TypeAlias = Callable[[FileResult], object]
"""Called with what became of each file, as it comes."""
Note: TypeAlias = Callable[[str], object]
"""Called with each sentence that is worth telling and belongs to no single file."""


@dataclass(frozen=True, repr=False)
class Outcome:
    """What was done. ``print(outcome)`` says it in a few lines."""

    files: tuple[FileResult, ...]
    """One record for each input, in input order: done, skipped (finished by an earlier run), or failed."""
    outputs: tuple[Path, ...]
    """What is there now, under its final name: a denoised or simulated micrograph for each input that did not fail, in
    input order; the figures and tables of an evaluation."""
    lists: tuple[Path, ...] = ()
    """Files that list all of them: a STAR file, a cryoSPARC dataset."""
    page: Path | None = None
    """The page to open in a browser."""
    remarks: tuple[str, ...] = ()
    """What is worth knowing of the data and of the run; one sentence each."""
    exit_code: int = 0
    """What the command would have ended with: 0 all done, 3 some inputs failed, 1 an evaluation is not better than required.
    Where the command ends with another code, Python raises an error."""
    details: dict[str, Any] = field(default_factory=dict)
    """What the command's ``--json`` says of the run as a whole."""

    @property
    def failures(self) -> tuple[FileResult, ...]:
        """The inputs that failed; ``message`` says why. One that failed never stops the others."""
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
    """Give what was written for each input that did not fail."""
    return tuple(item.output for item in batch.files if item.status != "failed" and item.output is not None)


def remarks_of(batch: BatchResult, notes: Sequence[str]) -> tuple[str, ...]:
    """Give the notes of a run, then the remarks on each micrograph that is done, with its name."""
    of_files = (
        f"{item.input}: {remark}" for item in batch.files if item.status == "done" for remark in separate(item.message)
    )
    return (*notes, *of_files)


_ERRORS: dict[int, type[CryoplugError]] = {error.exit_code: error for error in (UsageError, StorageError, DeviceError)}


def check_usable(batch: BatchResult) -> None:
    """Raise what the command would end with, where no input at all could be used; where some could, that is a result.

    Raises
    ------
    InputError
        No input could be used; the message says why of the first few.
    StorageError, DeviceError
        All failed for that reason.
    """
    failed = batch.failed
    # Who watches is content with what failed so far, and exits with 3: more may come.
    if not failed or len(failed) < len(batch.files) or batch.exit_code == EXIT_PARTIAL:
        return
    raise _ERRORS.get(batch.exit_code, InputError)("\n".join(_first([_why(item) for item in failed])))


class Notes:
    """Keep every sentence of a run for its outcome, and pass it on to the caller.

    Parameters
    ----------
    further
        The caller's own function; None: sentences are only kept.
    """

    def __init__(self, further: Note | None) -> None:
        self.kept: list[str] = []
        self._further = further

    def take(self, text: str) -> None:
        """Keep a sentence, and pass it on."""
        self.kept.append(text)
        if self._further is not None:
            self._further(text)


def reporting(progress: Progress | None) -> Callable[[FileResult], None]:
    """Give what a workflow calls with each record: the caller's own function, or nothing, for the outcome has them all."""

    def report(result: FileResult) -> None:
        if progress is not None:
            progress(result)

    return report
