"""The pages of the site are complete: every exit code, every page in the menu, pictures small enough for a repository."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import cryoplug
from cryoplug.errors import CryoplugError
from documentation.blocks import ROOT

DOCS = ROOT / "docs"
TROUBLE = DOCS / "troubleshooting.md"


def exit_codes() -> set[int]:
    codes, todo = {0, 3, 130, 138, 143}, [CryoplugError]
    while todo:
        item = todo.pop()
        codes.add(item.exit_code)
        todo += item.__subclasses__()
    return codes


@pytest.mark.parametrize("code", sorted(exit_codes()))
def test_the_page_on_trouble_has_each_exit_code_and_what_to_do(code: int) -> None:
    titles = re.split(r"^## (.*)$", TROUBLE.read_text(encoding="utf-8"), flags=re.M)[1:]
    sections = {title: text for title, text in zip(titles[::2], titles[1::2], strict=True)}
    found = [text for title, text in sections.items() if str(code) in re.findall(r"\d+", title.partition(":")[0])]
    assert len(found) == 1 and len(found[0].split()) > 25


def test_messages_that_the_page_on_trouble_quotes_are_those_of_the_program() -> None:
    said = (DOCS / "faults.md").read_text(encoding="utf-8").replace("\\_", "_")
    said += "".join(path.read_text(encoding="utf-8") for path in (ROOT / "cryoplug").rglob("*.py"))
    table = TROUBLE.read_text(encoding="utf-8").partition("| what the line says |")[2].partition("\n\n")[0]
    quoted = [row.split("|")[1].strip() for row in table.splitlines()[2:]]
    parts = [part.strip() for text in quoted for part in re.split(r"\.\.\.", re.findall(r"`([^`]*)`", text)[0])]
    assert len(quoted) > 5
    assert [part for part in parts if part and part not in said] == []


def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_pages", DOCS / "site_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_menu() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = set(re.findall(r"(?:- |: )(\S+\.md)$", text, re.M))
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.glob("*.md")}
    assert pages - listed == set(), "add it to the nav of mkdocs.yml"
    assert {page for page in listed if not (DOCS / page).is_file() and not (ROOT / page).is_file()} == set()


def test_the_page_on_python_has_all_public_names() -> None:
    assert set(hooks().public_names()) == set(cryoplug.__all__) - {"__version__"}
    assert (DOCS / "python.md").read_text(encoding="utf-8").count(hooks().NAMES) == 1


def test_links_lead_to_pages_of_the_site_and_a_file_that_is_none_is_only_named() -> None:
    class Page:
        class file:
            src_uri = "alternatives.md"

    class Files:
        def get_file_from_path(self, path: str) -> object:
            return None if path == "CITATION.cff" else path

    text = "[a](benchmarks.md#x) [b](../plugins/) [c](../CITATION.cff) [d](decisions)\n```\n[e](../CITATION.cff)\n```\n[f](https://g)"
    made = hooks().on_page_markdown(text, Page, {}, Files())
    first = min(path.name for path in (DOCS / "decisions").glob("*.md"))
    assert made == (
        f"[a](benchmarks.md#x) [b](plugins/README.md) c [d](decisions/{first})\n```\n[e](../CITATION.cff)\n```\n[f](https://g)"
    )


def test_pictures_are_small_and_all_are_shown() -> None:
    pictures = sorted((DOCS / "pictures").iterdir())
    sizes = [path.stat().st_size for path in pictures]
    assert max(sizes) <= 150_000 and sum(sizes) <= 1_000_000
    shown = "".join(page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *DOCS.glob("*.md")])
    assert [path.name for path in pictures if f"pictures/{path.name})" not in shown] == []


def test_a_picture_says_in_words_what_it_shows() -> None:
    for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for words, path in re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", page.read_text(encoding="utf-8")):
            assert len(words) > 15, f"{page.name}: {path}"


@pytest.mark.parametrize("folder", ["docs", "plugins", "examples", "benchmarks", "cryoplug"])
def test_no_merge_was_left_half_done(folder: str) -> None:
    pages: list[Path] = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / folder).rglob("*.md")]
    assert [page for page in pages if re.search(r"^(?:<{7}|>{7}) ", page.read_text(encoding="utf-8"), re.M)] == []
