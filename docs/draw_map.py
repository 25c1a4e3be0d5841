"""Draw the map in architecture.md from the first lines of the modules and from what they import.

Run it after a file was added, moved or renamed: ``python docs/draw_map.py``. A test compares the page with the package.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cryoplug"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- drawn by docs/draw_map.py: begin -->\n", "<!-- end -->\n"


def drawn_map() -> str:
    """Give the map: the layers from the bottom to the top, each folder with its imports and its files."""
    return "\n".join(text for layer in layers() for name in sorted(layer) for text in _room(name))


def layers() -> list[set[str]]:
    """Give the layers of the package, from the bottom to the top, as the tests keep them."""
    rules = ast.parse((ROOT / "tests" / "test_architecture.py").read_text(encoding="utf-8"))
    for node in rules.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS":
            return [set(ast.literal_eval(layer)) for layer in node.value.elts] + [{"testing"}]  # type: ignore[attr-defined]
    raise LookupError("tests/test_architecture.py has no LAYERS")


def first_line(path: Path) -> str:
    """Give what a module says of itself in one line."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]


def _room(name: str) -> list[str]:
    alone, folder = PACKAGE / f"{name}.py", PACKAGE / name
    if alone.is_file():
        return [f"### `{alone.name}`", "", first_line(alone), "", _imports([alone], name), ""]
    files = sorted(folder.rglob("*.py"), key=lambda path: (path.parent != folder, path))
    if not files:
        return []
    text = [f"### `{name}/`", "", first_line(folder / "__init__.py"), "", _imports(files, name), ""]
    for path in files:
        if path.name == "__init__.py":
            text += (
                []
                if path.parent == folder
                else ["", f"**`{path.parent.relative_to(PACKAGE)}/`**: {first_line(path)}", ""]
            )
        else:
            text.append(f"- `{path.name}`: {first_line(path)}")
    return [*text, ""]


def _imports(files: list[Path], own: str) -> str:
    found: set[str] = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cryoplug."):
                found.add((node.module or "").split(".")[1])
    return f"Imports: {', '.join(f'`{name}`' for name in sorted(found - {own})) or 'nothing of cryoplug'}."


def page_with(text: str, drawn: str) -> str:
    """Put the map into the page, in the place of the one that is there."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{drawn}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), drawn_map()), encoding="utf-8")
