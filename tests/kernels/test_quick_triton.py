"""Triton's compiled kernels are named without reading its library, and never after another Triton."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("triton")

from triton.runtime import cache

from cryoplug.kernels.quick_triton import library_key, triton


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    for name in ("_C/libtriton.so", "backends/nvidia/compiler.py", "compiler/code_generator.py", "language/core.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def test_the_same_triton_has_the_same_name(installed: Path) -> None:
    before = library_key(installed, "3.6.0")
    (installed / "compiler/__pycache__").mkdir()
    (installed / "compiler/__pycache__/code_generator.cpython-312.pyc").write_text("compiled by Python")
    assert library_key(installed, "3.6.0") == before


@pytest.mark.parametrize("changed", ["_C/libtriton.so", "backends/nvidia/compiler.py", "language/core.py"])
def test_another_triton_has_another_name(installed: Path, changed: str) -> None:
    before = library_key(installed, "3.6.0")
    assert library_key(installed, "3.6.1") != before
    status = (installed / changed).stat()
    os.utime(installed / changed, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
    newer = library_key(installed, "3.6.0")
    (installed / changed).write_text("something longer than its name was")
    assert len({before, newer, library_key(installed, "3.6.0")}) == 3
    (installed / changed).unlink()
    assert library_key(installed, "3.6.0") not in (before, newer)


def test_triton_asks_for_this_name() -> None:
    assert cache.triton_key() == library_key(Path(triton.__file__).parent, triton.__version__)
    assert "triton_key()" in Path(cache.__file__).read_text(encoding="utf-8").partition("def get_cache_key")[2]
