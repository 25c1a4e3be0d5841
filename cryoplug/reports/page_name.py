"""Which names a page may have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cryoplug.errors import not_allowed


def page_name_problems(report: Path | None) -> Iterator[str]:
    """List what is wrong with the name of a page, in the words of the command line; `report` may be None, for no page."""
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        yield not_allowed("--report", str(report), "a name that ends in .html")
