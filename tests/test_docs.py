"""The documentation says what the code does."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cryoplug.cli.main import COMMANDS
from cryoplug.errors import CryoplugError
from faults import table

ROOT = Path(__file__).resolve().parents[1]


def test_the_command_reference_is_what_the_commands_say() -> None:
    # A process of its own: click remembers the help option of a command that an earlier test ran by itself.
    run = subprocess.run([sys.executable, "-m", "cryoplug.cli.reference"], capture_output=True, check=True)
    written = (ROOT / "docs" / "commands.md").read_text()
    assert run.stdout.decode() == written, "run: python -m cryoplug.cli.reference > docs/commands.md"


def test_the_packaged_descriptions_of_scipions_forms_are_what_the_commands_say() -> None:
    folder = Path("plugins/scipion-em-cryoplug/cryoplug_scipion/described")
    for kept in sorted((ROOT / folder).iterdir()):
        said = subprocess.run(
            [sys.executable, "-m", "cryoplug", "describe", kept.stem], capture_output=True, check=True
        )
        assert said.stdout == kept.read_bytes(), f"run: cryoplug describe {kept.stem} > {folder / kept.name}"


def test_the_page_of_faults_has_every_row_of_the_matrix() -> None:
    text = (ROOT / "docs" / "faults.md").read_text()
    assert table.page([], text) == text and text.count(" | ok |\n") == len(table.faults()), (
        'run: make faults FAULTS_ARGS="--page docs/faults.md"; with FAULTS=disk-, only these rows are written anew'
    )


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_readme_names_every_command(name: str) -> None:
    assert f"cryoplug {name}" in (ROOT / "README.md").read_text()


def test_the_page_for_scripts_lists_every_exit_code() -> None:
    text = (ROOT / "docs/scripts.md").read_text()
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
    for path, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", _without_blocks(page)):
        if path.startswith("https://"):
            continue
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {path}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name}: {path}#{anchor}"


def anchors(page: Path) -> set[str]:
    """Give what links may name behind ``#``: the headings, as GitHub and the site spell them."""
    titles = re.findall(r"^#+ (.*?)\s*$", _without_blocks(page), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title.lower())) for title in titles}


def _without_blocks(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_an_anchor_is_spelled_as_the_site_spells_it() -> None:
    assert "which-row-is-first" in anchors(ROOT / "docs" / "files.md")


def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_map", ROOT / "docs" / "draw_map.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_map_of_the_house_is_the_house() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert page == drawing().page_with(page, drawing().drawn_map()), "run: python docs/draw_map.py"


def test_every_module_says_in_one_line_what_it_is() -> None:
    lines = {path: drawing().first_line(path) for path in (ROOT / "cryoplug").rglob("*.py")}
    poor = [str(path) for path, line in lines.items() if not (10 < len(line) < 130 and line.endswith((".", "?")))]
    assert len(lines) > 200 and not poor


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_and_functions_that_the_pages_name_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8").partition("## The map")[0]
    files = re.findall(r"`((?:[\w]+/)+\w+\.(?:py|md))`(?: `(\w+)`)?", text)
    assert len(files) > 8
    for name, function in files:
        path = next((place / name for place in (ROOT, ROOT / "cryoplug") if (place / name).is_file()), None)
        assert path is not None or "NAME" in name or "COMMAND" in name, name
        if function and path is not None:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            defined = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
            assert function in defined, f"{name} has no {function}"


def test_the_page_has_the_layers_that_the_tests_keep() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    numbered = re.findall(r"(?m)^\d\. (`.*`)$", text.partition("## One decision")[0])
    written = [set(re.findall(r"`(\w+)`", line)) for line in numbered]
    kept = [layer - {"__init__", "__main__", "testing"} for layer in drawing().layers()]
    assert written == [layer for layer in kept if layer]
