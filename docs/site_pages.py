"""What MkDocs does beyond its own for this site: pages from outside of docs/, whole folders in the menu, the Python names.

MkDocs calls the functions whose names begin with ``on_``. Links between pages stay as they are in the repository, so that
they also work where the repository is read.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = "docs/"
NAMES = "<!-- the public names -->"
"""Where python.md gets the names of the package."""
_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?!https?:|mailto:|#)(?P<path>[^)#\s]+)(?P<place>#[^)\s]*)?\)")
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def on_config(config: Any) -> Any:
    """Write out the folders of the menu, one page after another."""
    config["nav"] = [_written_out(item) for item in config["nav"]]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the menu that lie outside of docs/."""
    from mkdocs.structure.files import File

    for path in sorted(set(_paths(config["nav"]))):
        if files.get_file_from_path(path) is None and (ROOT / path).is_file():
            files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let links lead to the pages of the site, and put in what stands in the code."""
    inside = (ROOT / DOCS / page.file.src_uri).is_file()
    here = DOCS + page.file.src_uri if inside else page.file.src_uri

    def link(match: re.Match[str]) -> str:
        there = posixpath.normpath(posixpath.join(posixpath.dirname(here), match["path"]))
        there = _first_page(there) if (ROOT / there).is_dir() else there
        target = there.removeprefix(DOCS)
        if (ROOT / there).is_file() and files.get_file_from_path(target) is None:
            return match["text"]  # a file of the repository that is no page
        relative = posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")
        return f"[{match['text']}]({relative}{match['place'] or ''})"

    parts, done = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(link, markdown[done : fence.start()]), fence[0]]
        done = fence.end()
    text = "".join([*parts, _LINK.sub(link, markdown[done:])])
    return text.replace(NAMES, "\n".join(f"\n::: {home}.{name}\n" for name, home in public_names().items()))


def public_names() -> dict[str, str]:
    """Give the public names of the package, functions first, each with the module that defines it; nothing is imported."""
    tree = ast.parse((ROOT / "cryoplug" / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            return dict(sorted(ast.literal_eval(node.value).items(), key=lambda item: (item[0][0].isupper(), item[0])))
    raise LookupError("cryoplug/__init__.py has no _HOMES")


def _written_out(item: Any) -> Any:
    if isinstance(item, str):
        return item
    (title, content), *_ = item.items()
    if isinstance(content, list):
        return {title: [_written_out(child) for child in content]}
    if not content.endswith("/"):
        return item
    pages = sorted((ROOT / content).glob("*.md")) or []
    pages += sorted((ROOT / content).glob("*/README.md"))
    return {title: [page.relative_to(ROOT).as_posix().removeprefix(DOCS) for page in pages]}


def _paths(item: Any) -> list[str]:
    if isinstance(item, str):
        return [item]
    children = item if isinstance(item, list) else item.values()
    return [path for child in children for path in _paths(child)]


def _first_page(folder: str) -> str:
    """Give the page that stands for a folder: its README, or its first page."""
    pages = [ROOT / folder / "README.md", *sorted((ROOT / folder).glob("*.md"))]
    return next((page.relative_to(ROOT).as_posix() for page in pages if page.is_file()), folder)
