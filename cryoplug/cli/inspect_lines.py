"""Inspections of many files for people: a line a file, the folder they lie in, and a table of all problems."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cryoplug.cli.output import printable_name
from cryoplug.core.pixel_size import UNKNOWN_ADVICE, said

if TYPE_CHECKING:
    from cryoplug.core.results import Finding
    from cryoplug.workflows.inspect.inspection import InspectedFolder, Inspection

_MOST_KINDS = 200
"""Most kinds of problems in the table; of further kinds only the number of files is counted."""
_EXAMPLES = 3
_NUMBERS = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?|nan|inf", re.IGNORECASE)
_SEVERITIES = ("error", "warning")


def line_of(inspection: Inspection) -> str:
    """Write one file of a folder on one line: what it is, then the first thing that is wrong with it."""
    summary = inspection.summary
    what = [inspection.kind]
    if "shape" in summary:
        frames = f" x {summary['images']}" if "images" in summary else ""
        what = [f"{summary['shape'][0]} x {summary['shape'][1]}{frames} {summary['dtype']}"]
        size = summary.get("pixel_size_angstrom")
        unknown = " (unknown)" if size is not None and said(size) is None else ""
        what.append("no pixel size" if size is None else f"{size:.4g} A{unknown}")
    elif "micrographs" in summary:
        what.append(f"{summary['micrographs']} files")
    problems = _problems(inspection)
    verdict = _text(problems[0]) if problems else "nothing wrong"
    more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
    return f"{printable_name(inspection.path)}: {', '.join(what)}: {verdict}{more}"


def problem_lines(inspection: Inspection) -> Iterator[str]:
    """Write the problems of a file, one line each; no line if nothing is wrong."""
    for item in _problems(inspection):
        yield f"{printable_name(inspection.path)}: {_text(item)}"


def folder_line(folder: InspectedFolder) -> str:
    """Write how many files a folder has, how many are wrong, and what was passed over."""
    plural = "s" * (folder.files != 1)
    text = f"{printable_name(folder.path)}: {folder.files} file{plural} looked at, {folder.wrong} wrong"
    if folder.without_pixel_size:
        do_not = "does not state its" if folder.without_pixel_size == 1 else "do not state their"
        text += f"; {folder.without_pixel_size} {do_not} pixel size: {UNKNOWN_ADVICE}"
    if folder.companions:
        text += f"; {folder.companions} of them only accompany a micrograph: convert and denoise leave them out"
    if folder.passed_over:
        passed = ", ".join(f"{number} {ending}" for ending, number in folder.passed_over.items())
        text += f"; passed over, of other kinds: {printable_name(passed)}"
    if folder.not_entered:
        names = folder.not_entered
        shown = ", ".join(map(printable_name, names[:_EXAMPLES])) + (", ..." if names[_EXAMPLES:] else "")
        text += (
            f"; {len(names)} folder{'s' * (len(names) > 1)} not looked into, hidden or a link to one above ({shown})"
        )
    return text


class ProblemTable:
    """All errors and warnings of a run, by kind; messages that differ only in numbers are one kind."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str, str], tuple[Finding, list[str]]] = {}
        self._counts: dict[tuple[str, str, str], int] = {}
        self._uncounted = 0

    def add(self, inspection: Inspection) -> None:
        """Count the problems of a file, each kind once."""
        for key, item in {
            (i.severity, i.field, _NUMBERS.sub("#", i.message)): i for i in _problems(inspection)
        }.items():
            if key not in self._kinds:
                if len(self._kinds) >= _MOST_KINDS:
                    self._uncounted += 1
                    continue
                self._kinds[key] = item, []
                self._counts[key] = 0
            self._counts[key] += 1
            names = self._kinds[key][1]
            if len(names) < _EXAMPLES:
                names.append(printable_name(inspection.path.name))

    def lines(self) -> list[str]:
        """Write the table, errors first, the most frequent first; empty when there is no problem."""
        if not self._kinds:
            return []
        order = sorted(self._kinds, key=lambda key: (_SEVERITIES.index(key[0]), -self._counts[key]))
        width = len(str(max(self._counts.values())))
        lines = ["", "problems, with the number of files:"]
        for key in order:
            item, names = self._kinds[key]
            count = self._counts[key]
            rest = f" and {count - len(names)} more" if count > len(names) else ""
            like = "such as " if count > 1 and _NUMBERS.search(item.message) else ""
            lines.append(f"  {count:{width}}  {like}{_text(item)} [{', '.join(names)}{rest}]")
        if self._uncounted:
            lines.append(f"  {self._uncounted} more of other kinds: see the lines above")
        return lines


def _problems(inspection: Inspection) -> list[Finding]:
    found = [item for item in inspection.findings if item.severity in _SEVERITIES]
    return sorted(found, key=lambda item: _SEVERITIES.index(item.severity))


def _text(item: Finding) -> str:
    return f"{item.severity.upper()} {printable_name(item.field)}: {printable_name(item.message)}"
