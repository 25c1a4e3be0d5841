"""Fixtures: simulated micrographs, and a project that has imported them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

try:
    from scipion_here import HERE, Micrograph, Plugin, Session
except ModuleNotFoundError as error:
    raise pytest.UsageError(
        f"Scipion or this plugin is not installed here ({error}); run plugins/scipion-em-cryoplug/install.sh VENV, then "
        "VENV/bin/python -m pytest -c plugins/pytest.ini plugins/scipion-em-cryoplug/tests"
    ) from error


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let Scipion warn as it likes: its code is not ours."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def simulated() -> Path:
    """Folder with noisy/, clean/, even/ and odd/, four micrographs of 256 pixels in each."""
    folder = HERE / "simulated"
    words = ("--count", "4", "--size", "256", "--pixel-size", "2.6")
    Plugin.program().answer("simulate", "-o", str(folder), *words)
    return folder


@pytest.fixture(scope="session")
def raw(simulated: Path) -> Path:
    """Folder of the noisy micrographs, under names with spaces."""
    folder = HERE / "raw micrographs"
    folder.mkdir()
    for path in sorted((simulated / "noisy").glob("*.mrc")):
        shutil.copy(path, folder / path.name.replace("_", " "))
    return folder


@pytest.fixture(scope="session")
def session() -> Session:
    """A project."""
    return Session("cryoplug")


@pytest.fixture(scope="session")
def imported(session: Session, raw: Path) -> Any:
    """The protocol that imported the raw micrographs."""
    return session.import_(raw)


@pytest.fixture(scope="session")
def halves(session: Session, imported: Any, simulated: Path) -> tuple[Any, str, str]:
    """A protocol with even and odd halves as scipion-em-motioncorr writes them, and the names of these two outputs.

    Files end in _EVN and _ODD, micrographs of one exposure have one name, and numbers say nothing.
    """
    for suffix, side, backwards in (("EVN", "even", False), ("ODD", "odd", True)):
        made = imported._createSetOfMicrographs(suffix=f"_{side}")
        made.copyInfo(imported.outputMicrographs)
        files = sorted((simulated / side).glob("*.mrc"), reverse=backwards)
        for path in files:
            target = Path(imported._getExtraPath(f"{path.stem}_aligned_mic_{suffix}.mrc"))
            shutil.copy(path, target)
            micrograph = Micrograph(location=str(target))
            micrograph.setMicName(path.name.replace("_", ""))
            made.append(micrograph)
        imported._defineOutputs(**{f"micrographs{side.title()}": made})
    imported._store()
    return imported, "micrographsEven", "micrographsOdd"
