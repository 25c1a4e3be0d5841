"""Progress of a list of files on stderr: a bar for a terminal, plain flushed lines for a log file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from cryoplug.cli.output import printable_name, say
from cryoplug.core.remarks import on_one_line
from cryoplug.core.results import FileResult


@contextlib.contextmanager
def file_progress(verb: str) -> Iterator[Callable[[FileResult], None]]:
    """Show each finished file; failures and warnings are always spelled out.

    Parameters
    ----------
    verb
        What is being done, as in ``denoise``; begins each line.

    Yields
    ------
    Callable
        Call it with each `FileResult` as it comes.
    """
    if not sys.stderr.isatty():
        yield lambda result: say(f"{verb}: {describe(result)}")
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(verb, total=None)

        def show(result: FileResult) -> None:
            bar.update(task, advance=1, description=f"{verb} {printable_name(result.input.name)}")
            if result.status == "failed" or result.message:
                bar.console.print(f"{verb}: {describe(result)}", markup=False, highlight=False)

        yield show


def describe(result: FileResult) -> str:
    """Say in one line what became of a file, with two remarks at most."""
    line = f"{printable_name(result.input)}: {result.status}"
    if result.status == "done":
        line += f" in {result.seconds:.2f} s"
    message = result.message.removeprefix(f"{result.input}: ")
    if result.status == "done":
        message = on_one_line(message)
    return line + (f": {printable_name(message)}" if message else "")
