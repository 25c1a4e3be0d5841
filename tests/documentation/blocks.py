"""Blocks of the pages: what they hold, and why one of them cannot run here.

A block that cannot run has a comment in the line above it, which no reader sees: ``<!-- not run: needs a GPU -->``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("plugins/**/README.md")]
)
"""All pages with commands for users; decisions and the changelog are a record of their day."""
SHELL = ("bash", "sh", "console")
"""Languages of a block of commands; in a console block they stand behind ``$``, and the rest is their output."""
REASONS = (
    "installs",
    "needs a GPU",
    "runs another program",
    "needs a cluster",
    "needs a window",
    "needs cryoSPARC",
    "needs make",
    "needs RELION",
    "run by tests/test_plugins.py",
    "runs until it is stopped",
)
"""Why a block is not run; its lines of cryoplug are checked all the same."""
_FENCE = re.compile(
    r"^(?:(?P<indent> *)<!-- (?P<mark>[^\n]*?) -->\n)?(?P<left> *)```(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=left)```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    """Of its first line, from 1."""
    language: str
    """What stands behind the opening fence; empty for none."""
    mark: str
    """The comment in the line above it; empty for none."""
    text: str

    @property
    def reason(self) -> str:
        """Why it is not run; empty when it is."""
        return self.mark.removeprefix("not run: ") if self.mark.startswith("not run: ") else ""

    @property
    def script(self) -> str:
        """Its commands, without prompts and output."""
        if self.language != "console":
            return self.text
        return "".join(line[2:] for line in self.text.splitlines(keepends=True) if line.startswith(("$ ", "> ")))

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Give the fenced blocks of a page in their order."""
    text, found = page.read_text(encoding="utf-8"), []
    for match in _FENCE.finditer(text):
        width = len(match["left"])
        lines = [line[width:] if line[:width].isspace() else line for line in match["text"].splitlines(keepends=True)]
        line = text.count("\n", 0, match.start("text")) + 1
        found.append(Block(page, line, match["language"].strip(), (match["mark"] or "").strip(), "".join(lines)))
    return found


def name(page: Path) -> str:
    """Give a page's name for a report of tests."""
    return page.relative_to(ROOT).as_posix()
