"""The page of an inspection: every path, and everything that is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryoplug.core.printable import printable_name
from cryoplug.core.results import Finding
from cryoplug.reports.big_table import Column, common_folder, packed
from cryoplug.reports.html import counted
from cryoplug.reports.sections import BigTable, Findings, Page, Section, sections_page

COLUMNS = (
    Column("path", "What was looked at.", "name", narrow=True),
    Column(
        "found",
        "error: cryoplug cannot use it. warning: something is wrong. note: merely unusual. good: nothing to say.",
        "phrase",
        narrow=True,
        tone={"error": "bad", "warning": "warn", "good": "good"},
    ),
    Column("kind", "What it is.", "phrase", narrow=True),
    Column("height", "Pixels in y."),
    Column("width", "Pixels in x."),
    Column("Å/px", "Pixel size, as the file says it."),
    Column("mean", "Of all pixels, in the file's grey values. Empty with --quick."),
    Column("sigma", "Their standard deviation."),
    Column("remarks", "Everything that was found, the worst first.", "phrase", long=True),
)
_ORDER = ("error", "warning", "note")
_CLASS = {"error": "bad", "warning": "warn", "note": ""}
_MOST_SPELLED = 30


@dataclass(frozen=True)
class InspectedRow:
    """One path."""

    path: str
    """Path as the user named it."""
    kind: str
    """What it is, such as ``micrograph``."""
    findings: tuple[Finding, ...] = ()
    """Everything that is wrong or unusual."""
    shape: tuple[int, int] | None = None
    """``(y, x)`` of an image; None for anything else."""
    pixel_size_angstrom: float | None = None
    """Pixel size of an image; None if unknown."""
    mean: float | None = None
    """Mean of its pixels; None if they were not read."""
    sigma: float | None = None
    """Standard deviation of its pixels; None if they were not read."""

    @property
    def worst(self) -> str:
        """Severity of the worst finding."""
        severities = {item.severity for item in self.findings}
        return next((name for name in _ORDER if name in severities), "good")

    def cells(self) -> tuple[object, ...]:
        """Give what the columns show."""
        found = sorted(self.findings, key=lambda item: _ORDER.index(item.severity))
        height, width = self.shape or (None, None)
        remarks = "; ".join(f"{item.field}: {item.message}" for item in found)
        return (
            printable_name(self.path),
            self.worst,
            self.kind,
            height,
            width,
            self.pixel_size_angstrom,
            self.mean,
            self.sigma,
            printable_name(remarks),
        )


def inspect_page(rows: Sequence[InspectedRow], sections: Sequence[Section] = ()) -> str:
    """Write the page.

    Parameters
    ----------
    rows
        Every path that was inspected, in order.
    sections
        Pictures and charts of stores and runs among them.
    """
    bad = [index for index, row in enumerate(rows) if row.worst in ("error", "warning")]
    errors = sum(rows[index].worst == "error" for index in bad)
    words = [
        f"{counted(len(bad), 'of them has an error or a warning', 'of them have errors or warnings')}. "
        "Each remark says what to do."
        if bad
        else "Nothing is wrong."
    ]
    parts = []
    if bad:
        parts.append(_what_is_wrong([rows[index] for index in bad]))
    parts += sections
    table = packed(COLUMNS, (row.cells() for row in rows), bad=bad)
    parts.append(Section("Everything that was looked at", [BigTable("paths", "paths", COLUMNS, table)]))
    tiles = [
        ("looked at", f"{len(rows):,}", ""),
        ("with errors", f"{errors:,}", "bad" if errors else ""),
        ("with warnings", f"{len(bad) - errors:,}", "warn" if len(bad) > errors else ""),
    ]
    where = rows[0].path if len(rows) == 1 else f"{rows[0].path} and {len(rows) - 1:,} more" if rows else ""
    return sections_page(Page("inspect", f"{counted(len(rows), 'path')} inspected", where, parts, words, tiles))


def _what_is_wrong(rows: Sequence[InspectedRow]) -> Section:
    """List errors and warnings in full, file by file, files with errors first."""
    folder = common_folder([row.path for row in rows])
    ranked = sorted(rows, key=lambda row: _ORDER.index(row.worst))
    items = [
        (
            row.path.removeprefix(folder),
            [
                (_CLASS[item.severity], item.severity, f"{item.field}: {item.message}")
                for item in row.findings
                if item.severity != "note"
            ],
        )
        for row in ranked[:_MOST_SPELLED]
    ]
    more = len(rows) - len(items)
    said = f"And {more:,} more: tick “problems only” in the table below." if more > 0 else ""
    return Section("What is wrong", [Findings(items, said)], f"All are in {printable_name(folder)}." if folder else "")
