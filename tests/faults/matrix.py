"""Every fault of the matrix is met by a process of the command, and nothing is lost: ``make faults``.

Its name begins with no ``test_``: pytest tries the rows where this file is named, and not with all other tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.bench import Bench
from faults.table import Fault, Outcome, faults, summary
from faults.trial import Trial


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row.group}-{row.name}") for row in faults()])
def test_nothing_is_lost(row: Fault, bench: Bench, folder: Path, tell: Callable[[Outcome], None]) -> None:
    begin = time.monotonic()
    trial = Trial(bench, folder)
    try:
        row.attempt(trial)
        trial.close()
    finally:
        trial.undo()
    outcome = Outcome(
        name=row.name,
        group=row.group,
        title=row.title,
        command=trial.command,
        seen=trial.seen,
        exit_code=trial.exit_code,
        kept=tuple(dict.fromkeys(trial.facts)),
        problems=tuple(trial.problems),
        seconds=time.monotonic() - begin,
    )
    tell(outcome)
    assert not outcome.problems, summary(outcome)
