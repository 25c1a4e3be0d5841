"""While a large library is imported, the collector of garbage rests; afterwards it goes on as before."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cryoplug.machine.quick_import import import_quickly

NAME = "a_large_library_for_this_test"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / f"{NAME}.py"
    sys.modules.pop(NAME, None)
    gc.unfreeze()


def test_the_collector_rests_during_the_import_and_leaves_its_objects_alone(library: Path) -> None:
    library.write_text("import gc\nenabled = gc.isenabled()\nmade = [[] for _ in range(1000)]\n")
    finders, frozen = list(sys.meta_path), gc.get_freeze_count()
    import_quickly(NAME)
    module = importlib.import_module(NAME)
    assert not module.enabled and gc.isenabled()
    assert gc.get_freeze_count() >= frozen + 1000
    assert sys.meta_path == finders


def test_the_collector_goes_on_after_an_import_that_fails(library: Path) -> None:
    library.write_text("raise ImportError('libcudart.so is missing')\n")
    import_quickly(NAME)
    with pytest.raises(ImportError, match="libcudart"):
        importlib.import_module(NAME)
    assert gc.isenabled()


def test_a_library_that_is_missing_is_missing(library: Path) -> None:
    import_quickly(NAME)
    with pytest.raises(ModuleNotFoundError, match=NAME):
        importlib.import_module(NAME)
    assert gc.isenabled()


def test_a_library_that_is_there_is_left_alone(library: Path) -> None:
    finders = list(sys.meta_path)
    import_quickly("gc")
    assert sys.meta_path == finders
