"""Progress on stderr, with totals and the time left: a bar for a terminal, plain flushed lines for a log file."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from cryoplug.cli.output import echo_result, is_quiet, printable_name, say, talking_above
from cryoplug.core.outlook import Outlook
from cryoplug.core.remarks import on_one_line
from cryoplug.core.results import FileResult, plain
from cryoplug.core.time_left import TimeLeft

if TYPE_CHECKING:
    from cryoplug.training.progress import Event


_STEPS = 10_000
"""Number of latest training steps from which the speed is computed."""


_HEARTBEAT_S = 600.0
"""Seconds between the lines in which ``--watch`` says, in a log file, what it waits for: proof that it is alive."""


class FileProgress:
    """Shows each finished file, and prints its record for ``--json``; failures are always shown.

    Parameters
    ----------
    verb
        What is being done, such as ``denoise``; each line begins with it.
    recorded
        Statuses of files whose records go to stdout.
    bar
        The progress bar of a terminal, if there is one.
    """

    def __init__(self, verb: str, *, recorded: Collection[str], bar: _Bar | None) -> None:
        self._verb, self._recorded, self._bar = verb, recorded, bar
        self._left = TimeLeft()
        self._finished = 0
        self._waiting_told_at = -_HEARTBEAT_S

    def expect(self, outlook: Outlook) -> None:
        """Note how many files there are, and what the run waits for."""
        if outlook.total != self._left.total:
            self._left.expect(outlook.total)
        waiting = f"waiting: {outlook.waiting[0]}" if outlook.waiting else ""
        if self._bar is not None:
            self._bar.show(self._left, waiting)
        elif waiting and time.monotonic() >= self._waiting_told_at + _HEARTBEAT_S:
            self._waiting_told_at = time.monotonic()
            say(f"{self._verb}: {self._left.count_text}: {waiting}")

    @property
    def totals(self) -> dict[str, int]:
        """Counts for a record: how many files are finished, and how many there are; empty while that is not known."""
        return {} if self._left.total is None else {"finished": self._left.done, "total": self._left.total}

    def __call__(self, result: FileResult) -> None:
        """Count and show a file that is finished."""
        self._finished += 1
        total = self._left.total
        # A watcher may do a file twice, when it was written anew.
        self._left.reach(
            self._finished if total is None else min(self._finished, total), free=result.status == "skipped"
        )
        if result.status in self._recorded:
            echo_result({**plain(result), **self.totals}, as_json=True, type="file")
        line = f"{self._verb}: {describe(result)}"
        if self._bar is None:
            counted = self._left.count_text
            line = f"{self._verb}: {counted}: {describe(result)}" if counted else line
            say(line, urgent=result.status == "failed")
            return
        self._bar.show(self._left, printable_name(result.input.name))
        if result.status == "failed" or result.message:
            self._bar.say(line)


class TrainProgress:
    """Shows how far the training is, in front of each of its lines.

    Parameters
    ----------
    bar
        The bar of a terminal, if there is one.
    """

    def __init__(self, bar: _Bar | None) -> None:
        self._bar = bar
        self._left: TimeLeft | None = None
        self._text = ""

    def advance(self, step: int, total: int | None) -> None:
        """Note how many steps of the whole run are done, also those before it was resumed."""
        # The first step chooses algorithms: its time says nothing. Validation between epochs is counted in, on the other hand.
        first = self._left is None
        self._left = self._left or TimeLeft(last=_STEPS)
        self._left.expect(total)
        self._left.reach(step, free=first)
        if self._bar is not None:
            self._bar.show(self._left, self._text)

    def say(self, event: Event) -> None:
        """Print the line of an event; in a terminal, only the bar shows the progress within an epoch."""
        from cryoplug.training.progress import BatchReport, EpochReport, Note

        percent = "" if self._left is None or isinstance(event, Note) else self._left.percent_text
        if self._bar is None:
            say(f"train: {percent}: {event.text}" if percent else f"train: {event.text}")
        elif isinstance(event, BatchReport):
            self._text = event.text
        else:
            self._text = f"epoch {event.epoch + 1}" if isinstance(event, EpochReport) else self._text
            self._bar.say(f"train: {event.text}")


@contextlib.contextmanager
def file_progress(
    verb: str, *, as_json: bool = False, recorded: Collection[str] = ("done", "skipped", "failed")
) -> Iterator[FileProgress]:
    """Show a list of files.

    Parameters
    ----------
    verb
        What is being done, such as ``denoise``; each line begins with it.
    as_json
        Whether stdout gets a record of each file.
    recorded
        Statuses of files that get a record.

    Yields
    ------
    FileProgress
        Call it with each `FileResult` as it comes.
    """
    with _bar_of_terminal(verb, percent=False) as bar:
        yield FileProgress(verb, recorded=recorded if as_json else (), bar=bar)


@contextlib.contextmanager
def train_progress() -> Iterator[TrainProgress]:
    """Show a run of training."""
    with _bar_of_terminal("train", percent=True) as bar:
        yield TrainProgress(bar)


def describe(result: FileResult) -> str:
    """Say in one line how a file ended, with at most two remarks."""
    line = f"{printable_name(result.input)}: {result.status}"
    if result.status == "done":
        line += f" in {result.seconds:.2f} s"
    message = result.message.removeprefix(f"{result.input}: ")
    if result.status == "done":
        message = on_one_line(message)
    return line + (f": {printable_name(message)}" if message else "")


class _Bar:
    """A progress bar (of the library rich) that shows a `TimeLeft`; the time goes on counting between two files."""

    def __init__(self, bar: Any, task: Any, *, percent: bool) -> None:
        self._bar, self._task, self._percent = bar, task, percent

    def show(self, left: TimeLeft, text: str) -> None:
        self._bar.update(self._task, completed=left.done, total=left.total, left=left, text=text)

    def say(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False)


@contextlib.contextmanager
def _bar_of_terminal(verb: str, *, percent: bool) -> Iterator[_Bar | None]:
    if is_quiet() or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class LeftColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            left: TimeLeft | None = task.fields.get("left")
            return Text("" if left is None else left.percent_text if percent else left.count_text)

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        LeftColumn(table_column=Column(no_wrap=True)),
        TextColumn(
            "{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
        ),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as bar:
        shown = _Bar(bar, bar.add_task(verb, total=None, text="", left=None), percent=percent)
        with talking_above(shown.say):
            yield shown
