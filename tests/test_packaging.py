"""What is built from this tree: the general model is in the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from cryoplug.models.shipped import CARD_NAME

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("checkpoint.json", "model.safetensors", CARD_NAME)


def build_wheel(tree: Path, target: Path) -> Path:
    """Build without the network, by the setuptools of this environment."""
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = target.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_general_model_and_finds_it(tmp_path: Path, general_model: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "cryoplug", tree / "cryoplug", ignore=shutil.ignore_patterns("__pycache__"))
    for item in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / item, tree)
    shipped = tree / "cryoplug" / "models" / "general"
    if not (shipped / "model.safetensors").is_file():
        shutil.copytree(general_model, shipped)
    wheel = build_wheel(tree, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert [name for name in SHIPPED if f"cryoplug/models/general/{name}" not in names] == []
        archive.extractall(tmp_path / "site")
    code = (
        "from cryoplug.models.checkpoint import load_checkpoint; import cryoplug; "
        "print(cryoplug.__file__, load_checkpoint('general').is_general)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(tmp_path / "site" / "cryoplug" / "__init__.py"), "True"]
