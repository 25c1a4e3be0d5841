"""What goes to run.out and run.err: whole lines, written at once; run.err has nothing but what went wrong.

RELION's window follows run.out and shows run.err in red. Micrographs that an earlier run finished get no line of their
own: an on-the-fly job runs again every few minutes for days.
"""

from __future__ import annotations

from collections import Counter

from cryoplug.cli.output import echo_result, say
from cryoplug.cli.progress import describe
from cryoplug.core.results import FileResult


class Talk:
    """The lines of one job.

    Parameters
    ----------
    verb
        What is being done; begins each line.
    total
        How many micrographs there are.
    """

    def __init__(self, verb: str, total: int = 0) -> None:
        self.verb = verb
        self.total = total
        self._counts: Counter[str] = Counter()

    def note(self, text: str) -> None:
        """Say something that belongs to no single file."""
        echo_result(None, as_json=False, text=f"{self.verb}: {text}")

    def file(self, result: FileResult) -> None:
        """Say what became of a micrograph."""
        self._counts[result.status] += 1
        if result.status == "skipped":
            return
        place = f"{sum(self._counts.values())} of {self.total}"
        line = f"{self.verb}: {place}: {describe(result)}"
        if result.status == "failed":
            say(line)
        else:
            echo_result(None, as_json=False, text=line)

    def summary(self) -> None:
        """Say the counts of all."""
        text = ", ".join(f"{count} {status}" for status, count in sorted(self._counts.items()))
        self.note((text or "nothing to do").replace("skipped", "finished before"))
