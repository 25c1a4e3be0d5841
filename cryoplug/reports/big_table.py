"""A table of tens of thousands of rows, packed for the page's script, which draws only the visible rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Column:
    """A column and its meaning."""

    label: str
    """Heading."""
    hint: str
    """Meaning of the column, for the legend."""
    kind: Literal["name", "number", "text", "phrase"] = "number"
    """``name``: the name of the row. ``phrase``: texts that many rows share, stored once in the page."""
    narrow: bool = False
    """Whether to show it on a phone, too."""
    long: bool = False
    """Whether it may hold sentences, which are shown in full for the chosen row."""
    tone: Mapping[str, str] = field(default_factory=dict)
    """Class of the style sheet for some values."""


def packed(
    columns: Sequence[Column], rows: Iterable[Sequence[Any]], *, bad: Sequence[int], first: int = 0
) -> dict[str, Any]:
    """Give a table as plain JSON.

    Parameters
    ----------
    columns
        Headings.
    rows
        Cells in the order of the columns: numbers or None, and texts, already made printable.
    bad
        Rows that "problems only" keeps.
    first
        Row to choose when the page opens.
    """
    phrases: dict[str, int] = {}
    shared = [column.kind == "phrase" for column in columns]
    cells = [
        [
            phrases.setdefault(cell, len(phrases))
            if once
            else float(f"{cell:.5g}")
            if isinstance(cell, float)
            else cell
            for cell, once in zip(row, shared, strict=True)
        ]
        for row in rows
    ]
    heads = [
        {
            "label": column.label,
            "hint": column.hint,
            "kind": {"phrase": "text", "number": "number"}.get(column.kind, "string"),
            "narrow": column.narrow,
            "name": column.kind == "name",
            "long": column.long,
            "tone": dict(column.tone),
            "digits": 4,
        }
        for column in columns
    ]
    names = next((place for place, column in enumerate(columns) if column.kind == "name"), None)
    folder = "" if names is None else common_folder([str(row[names]) for row in cells])
    packed_rows = {"columns": heads, "rows": cells, "texts": list(phrases), "bad": list(bad), "first": first}
    return {**packed_rows, "folder": folder}


def common_folder(names: Sequence[str]) -> str:
    """Give the folder with which all names begin, such as ``/data/job002/``, so that it is shown only once; else empty."""
    if len(names) < 2:
        return ""
    low, high = min(names), max(names)
    alike = next((place for place, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return low[: low.rfind("/", 0, alike) + 1]


def legend(columns: Iterable[Column]) -> list[tuple[str, str]]:
    """Give label and meaning of every column."""
    return [(column.label, column.hint) for column in columns]
