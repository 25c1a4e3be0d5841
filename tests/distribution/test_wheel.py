"""What is built from this tree: every file of the package is in the wheel, and the source archive builds the same one."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

from distribution.building import build, files_of_the_package


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    packed = {name for name in contents(wheel) if name.startswith("cryoplug/")}
    assert packed == files_of_the_package()
    general = [f"cryoplug/models/general/{name}" for name in ("checkpoint.json", "model.safetensors", "MODEL_CARD.md")]
    general += [f"cryoplug/models/general/start/{name}" for name in ("checkpoint.json", "model.safetensors")]
    others = ["cryoplug/py.typed", "cryoplug/CITATION.cff", "cryoplug/reports/templates/base.html"]
    assert packed >= {*general, *others}


def test_the_source_archive_builds_the_same_wheel(tree: Path, wheel: Path, tmp_path: Path) -> None:
    archive = build(tree, "sdist", tmp_path)
    with tarfile.open(archive) as packed:
        names = packed.getnames()
        packed.extractall(tmp_path / "unpacked", filter="data")
    assert not [name for name in names if "/tests" in name], "tests need the repository"
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert contents(build(unpacked, "wheel", tmp_path)) == contents(wheel)
