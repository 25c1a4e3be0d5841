"""Build the wheel and the source archive of this tree, without the network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
OF_THE_BUILD = (
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CITATION.cff",
    "constraints.txt",
)


def copied_tree(target: Path) -> Path:
    """Copy what a build needs: what older builds left beside the sources must not get into a new one."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "cryoplug", target / "cryoplug", symlinks=True, ignore=ignored)
    (target / "tests").mkdir()
    for name in (*OF_THE_BUILD, "tests/test_docs.py"):
        shutil.copy(ROOT / name, target / name)
    return target


def build(tree: Path, kind: Literal["wheel", "sdist"], target: Path) -> Path:
    """Build with the setuptools of this environment, and give the one file that came."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


def files_of_the_package() -> set[str]:
    """Name every file of the package, as a wheel does."""
    found = (path for path in (ROOT / "cryoplug").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in found}
