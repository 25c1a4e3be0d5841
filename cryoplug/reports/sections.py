"""Pages made of sections: words, numbers, charts, pictures and tables, in the same order on all pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryoplug.reports.big_table import Column, legend
from cryoplug.reports.html import render


@dataclass(frozen=True)
class Chart:
    """A chart with its caption."""

    title: str
    """Title of the chart."""
    svg: str
    """SVG from `cryoplug.reports.svg`."""
    caption: str
    """What the chart shows, and what to do."""
    block = "chart"


@dataclass(frozen=True, eq=False)
class Panels:
    """Pictures side by side, on one grey scale."""

    pictures: Sequence[tuple[bytes, str]]
    """JPEG and caption of each."""
    caption: str = ""
    """What the pictures show."""
    block = "panels"


@dataclass(frozen=True, eq=False)
class ContactSheet:
    """Many small pictures."""

    pictures: Sequence[tuple[bytes, str, bool]]
    """JPEG, caption, and whether it stands out."""
    caption: str = ""
    """What the pictures show."""
    block = "sheet"


@dataclass(frozen=True)
class Grid:
    """A small table, with all its rows in the page."""

    columns: Sequence[Column]
    """Headings; their hints are the legend."""
    rows: Sequence[Sequence[str]]
    """Texts of the cells."""
    caption: str = ""
    """What to look for."""
    block = "grid"

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Label and meaning of every column."""
        return legend(self.columns)


@dataclass(frozen=True, eq=False)
class BigTable:
    """A table of many rows, with search and sort."""

    name: str
    """Name of the table's data in the page."""
    label: str
    """What the rows are, in the plural."""
    columns: Sequence[Column]
    """Headings."""
    table: Mapping[str, Any]
    """From `cryoplug.reports.big_table.packed`."""
    hint: str = "Choose a row to read all of it. A click on a column sorts by it. The arrow keys go through the rows."
    """How to use it."""
    block = "table"

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Label and meaning of every column."""
        return legend(self.columns)


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    items: Sequence[tuple[str, str]]
    """Label and value."""
    block = "facts"


@dataclass(frozen=True)
class Findings:
    """What was found of several files, file by file."""

    items: Sequence[tuple[str, Sequence[tuple[str, str, str]]]]
    """Name of the file; and of each finding its class of the style sheet, how bad it is in a word, and the sentence."""
    more: str = ""
    """Text below the findings if not all are shown."""
    block = "findings"


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    title: str
    """Heading."""
    blocks: Sequence[Any]
    """Charts, tables and other blocks of this module; consecutive charts stand side by side."""
    lead: str = ""
    """Introduction below the heading."""

    @property
    def groups(self) -> list[list[Any]]:
        """The blocks, with neighbouring charts together."""
        groups: list[list[Any]] = []
        for block in self.blocks:
            if block.block == "chart" and groups and groups[-1][0].block == "chart":
                groups[-1].append(block)
            else:
                groups.append([block])
        return groups


@dataclass(frozen=True)
class Page:
    """What a page says."""

    command: str
    """Which command wrote it."""
    headline: str
    """The result in a few words."""
    where: str
    """Path of what it is about."""
    sections: Sequence[Section]
    """In order of importance."""
    words: Sequence[str] = ()
    """Sentences below the headline, the most important first; the last says what to do next."""
    tiles: Sequence[tuple[str, str, str]] = field(default_factory=tuple)
    """Label, number, and class of the style sheet."""


def sections_page(page: Page) -> str:
    """Write a page of sections."""
    tables = {
        block.name: block.table for section in page.sections for block in section.blocks if isinstance(block, BigTable)
    }
    return render("sections", title=f"{page.headline}", data=tables, page=page)
