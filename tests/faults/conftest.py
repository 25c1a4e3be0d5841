"""What the rows of the fault matrix are tried with, and the page that tells what came of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from faults.bench import Bench
from faults.table import Outcome, page
from warm_start import WarmStart


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--page", type=Path, help="Write the rows that are tried into this page; others stay.")
    group.addoption("--cold", action="store_true", help="Start each process like a user's; without it most are forks.")
    group.addoption("--keep", type=Path, help="Work in this new folder and leave it.")


@pytest.fixture(scope="session")
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Give a folder that rows which run as another user get through, unlike pytest's own."""
    kept = request.config.getoption("--keep")
    with tempfile.TemporaryDirectory(prefix="cryoplug-faults-") as temporary:
        found = kept / getattr(request.config, "workerinput", {}).get("workerid", "one") if kept else Path(temporary)
        found.mkdir(parents=True, exist_ok=not kept)
        found.chmod(0o755)
        yield found.resolve()


@pytest.fixture(scope="session")
def bench(root: Path, request: pytest.FixtureRequest) -> Bench:
    """Make what the faults are tried on, once."""
    warm: WarmStart | None = None if request.config.getoption("--cold") else request.getfixturevalue("warm_start")
    (root / "bench").mkdir()
    return Bench(root / "bench", warm)


@pytest.fixture
def folder(root: Path, request: pytest.FixtureRequest) -> Path:
    """Give a row a folder of its own."""
    found = root / request.node.callspec.id
    found.mkdir()
    return found


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[Outcome], None]:
    """Give a function that hands an outcome to the process that writes the page."""
    return lambda outcome: record_property("outcome", asdict(outcome))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Page(config))


class _Page:
    """Gathers outcomes, those of other processes too, and writes them into the page."""

    def __init__(self, config: pytest.Config) -> None:
        self.target: Path | None = config.getoption("--page", None)
        self.outcomes: list[Outcome] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = dict(report.user_properties).get("outcome")
        if report.when == "call" and isinstance(found, dict):
            self.outcomes.append(Outcome(**found))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.target and not hasattr(session.config, "workerinput"):
            before = self.target.read_text(encoding="utf-8") if self.target.exists() else ""
            self.target.write_text(page(self.outcomes, before), encoding="utf-8")
