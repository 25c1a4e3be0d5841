"""The documentation says what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cryoplug.cli.main import COMMANDS
from cryoplug.errors import CryoplugError

ROOT = Path(__file__).resolve().parents[1]


def test_the_command_reference_is_what_the_commands_say() -> None:
    # A process of its own: click remembers the help option of a command that an earlier test ran by itself.
    run = subprocess.run([sys.executable, "-m", "cryoplug.cli.reference"], capture_output=True, check=True)
    written = (ROOT / "docs" / "commands.md").read_text()
    assert run.stdout.decode() == written, "run: python -m cryoplug.cli.reference > docs/commands.md"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_readme_names_every_command(name: str) -> None:
    assert f"cryoplug {name}" in (ROOT / "README.md").read_text()


def test_the_readme_lists_every_exit_code() -> None:
    text = (ROOT / "README.md").read_text()
    codes, todo = set(), [CryoplugError]
    while todo:
        item = todo.pop()
        codes.add(item.exit_code)
        todo += item.__subclasses__()
    assert all(re.search(rf"^\| {code} \|", text, re.MULTILINE) for code in codes)


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("plugins/**/*.md")], ids=str
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"
