"""Write run.out and run.err: whole lines at once; run.err has only problems.

RELION's window shows run.out, and run.err in red. Micrographs that an earlier run finished get no line, because an
on-the-fly job runs again every few minutes for days.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from cryoplug.cli.output import echo_result, say
from cryoplug.cli.progress import describe
from cryoplug.core.results import FileResult


class Talk:
    """The lines of one job.

    Parameters
    ----------
    verb
        Name of the work; begins each line.
    total
        How many micrographs there are.
    as_json
        Whether stdout gets JSON lines, a record for each micrograph or epoch, and talk goes to stderr.
    """

    def __init__(self, verb: str, total: int = 0, *, as_json: bool) -> None:
        self.verb = verb
        self.total = total
        self.as_json = as_json
        self._counts: Counter[str] = Counter()

    def note(self, text: str) -> None:
        """Print a sentence that concerns no single file."""
        self._say(f"{self.verb}: {text}", wrong=False)

    def file(self, result: FileResult) -> None:
        """Print the result of a micrograph."""
        self.record(result)
        self._counts[result.status] += 1
        if result.status != "skipped":
            place = f"{sum(self._counts.values())} of {self.total}"
            self._say(f"{self.verb}: {place}: {describe(result)}", wrong=result.status == "failed")

    def record(self, record: Any) -> None:
        """Write a record, if records were requested."""
        echo_result(record, as_json=self.as_json)

    def summary(self) -> None:
        """Print the counts of all micrographs."""
        text = ", ".join(f"{count} {status}" for status, count in sorted(self._counts.items()))
        self.note((text or "nothing to do").replace("skipped", "finished before"))

    def _say(self, line: str, *, wrong: bool) -> None:
        if wrong or self.as_json:
            say(line)
        else:
            echo_result(None, as_json=False, text=line)
