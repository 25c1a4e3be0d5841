"""Runs the laws of a contract on something, and says which of them fail."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest


def laws_of(contract: type) -> set[str]:
    return {name for name in dir(contract) if name.startswith("test_") and getattr(contract, name) is not None}


@pytest.fixture
def broken_laws(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., set[str]]:
    """Give a function that runs all laws of a contract but some, and returns the names of those that fail."""

    def run(contract: type, *, skip: tuple[str, ...] = ()) -> set[str]:
        found = set()
        for name in sorted(laws_of(contract) - set(skip)):
            law, folder = getattr(contract(), name), tmp_path / name
            folder.mkdir()
            with pytest.MonkeyPatch.context() as patch:
                given = {"tmp_path": folder, "capfd": capfd, "monkeypatch": patch}
                try:
                    law(**{key: given[key] for key in inspect.signature(law).parameters})
                except (Exception, pytest.fail.Exception):  # noqa: BLE001 -- a fault may raise anything
                    found.add(name)
        return found

    return run


@pytest.fixture
def laws() -> Callable[[type], set[str]]:
    return laws_of
