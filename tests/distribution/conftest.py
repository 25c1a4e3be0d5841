"""One wheel for all tests of what is built from this tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from distribution.building import build, copied_tree


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied_tree(tmp_path_factory.mktemp("build") / "tree")


@pytest.fixture(scope="session")
def wheel(tree: Path) -> Path:
    return build(tree, "wheel", tree.parent)
