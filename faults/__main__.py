"""Try the faults one after another, print the table, exit 1 when anything was lost."""

from __future__ import annotations

import importlib
import re
import sys
import tempfile
import time
from pathlib import Path

import click

from faults.bench import Bench
from faults.table import FAULTS, Fault, Outcome, markdown, progress_line
from faults.trial import Trial

GROUPS = (
    "signals",
    "disk",
    "every_call",
    "sharing",
    "watching",
    "names",
    "lists",
    "headers",
    "movies",
    "pixels",
    "checkpoints",
    "stores",
    "devices",
    "surroundings",
    "outputs",
)
"""Modules with rows, in the order of the table."""
_HEAD = """# What happens when things go wrong

Written by `make faults` (`python -m faults --markdown docs/faults.md`). Each row brings a real fault about and meets it with a
real process of the command. What was lost is computed: results are compared, to the bit, with those of an undisturbed run,
inputs by their hash before and after, and everything under a final name must be complete. `in` is the folder of inputs, `out`
that of results.
"""


@click.command(help=__doc__)
@click.option("--only", metavar="REGEX", default="", help="Only rows whose name, group or title matches.")
@click.option("--list", "list_only", is_flag=True, help="Name the rows and try none.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Write the table to this file.")
@click.option("--keep", type=click.Path(path_type=Path), help="Work in this new folder and leave it.")
def main(only: str, list_only: bool, page: Path | None, keep: Path | None) -> None:
    """Run the rows."""
    for group in GROUPS:
        importlib.import_module(f"faults.{group}")
    chosen = [row for row in FAULTS if re.search(only, f"{row.group} {row.name} {row.title}", re.IGNORECASE)]
    if list_only:
        for row in chosen:
            click.echo(f"{row.group:12} {row.name:32} {row.title}")
        return
    if not chosen:
        raise click.UsageError(f"--only {only}: matches no row; --list names them")
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cryoplug-faults-") as temporary:
        root = Path(temporary).resolve()
        # Rows that run as another user must get through.
        root.chmod(0o755)
        if keep is not None:
            keep.mkdir(parents=True)
            root = keep.resolve()
        (root / "bench").mkdir()
        bench = Bench(root / "bench")
        outcomes = []
        for number, row in enumerate(chosen, start=1):
            outcome = attempt(row, bench, root / f"{number:03}-{row.name}")
            outcomes.append(outcome)
            click.echo(progress_line(number, outcome))
            sys.stdout.flush()
    failed = sum(outcome.verdict != "ok" for outcome in outcomes)
    text = f"{len(outcomes)} faults tried, {failed} of them with a loss."
    click.echo(f"{text} {time.monotonic() - begin:.0f} s")
    if page is not None:
        page.write_text(f"{_HEAD}\n{text}\n{markdown(outcomes)}", encoding="utf-8")
    sys.exit(1 if failed else 0)


def attempt(row: Fault, bench: Bench, folder: Path) -> Outcome:
    """Try one row in its own folder."""
    begin = time.monotonic()
    folder.mkdir()
    trial = Trial(bench, folder)
    try:
        row.attempt(trial)
        trial.close()
    finally:
        trial.undo()
    return Outcome(
        fault=row,
        command=trial.command,
        seen=trial.seen,
        exit_code=trial.exit_code,
        kept=tuple(dict.fromkeys(trial.facts)),
        problems=tuple(trial.problems),
        seconds=time.monotonic() - begin,
    )


if __name__ == "__main__":
    main()
