"""A process in which every hostile file is read by a fork of its own, whose time and memory are measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

MAX_WORK_S = 1.0
"""Of processor time: the same on a machine that others use too."""
MAX_SECONDS = 20.0
MAX_BYTES = 100_000_000


@dataclass(frozen=True)
class Outcome:
    error: str | None
    """Name of the class that was raised; None: nothing was."""
    is_ours: bool
    """Whether it is a CryoplugError."""
    message: str
    """Its message, or what was returned, as JSON."""
    seconds: float
    work_s: float
    bytes: int


@pytest.fixture(scope="session")
def reader() -> Iterator[Callable[[str, Path], Outcome]]:
    """Give a function that reads a path in one of the ways of `reading_process.py`."""
    script = Path(__file__).with_name("reading_process.py")
    process = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
    )

    def read(action: str, path: Path) -> Outcome:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([action, str(path)]) + "\n")
        process.stdin.flush()
        return Outcome(**json.loads(process.stdout.readline()))

    yield read
    process.communicate(timeout=60)


@pytest.fixture
def refused(reader: Callable[[str, Path], Outcome]) -> Callable[..., str]:
    """Give a function that reads a file, insists on a refusal within the limits, and returns the message."""

    def refuse(action: str, path: Path, *, named: Path | None = None) -> str:
        outcome = reader(action, path)
        assert outcome.error is not None, f"it was read: {outcome.message[:200]}"
        assert outcome.is_ours, f"{outcome.error}: {outcome.message[:2000]}"
        assert_within_limits(outcome)
        assert str(named or path) in outcome.message
        # What was found, what is allowed, what to do: and not the whole file in the message.
        assert 20 < len(outcome.message.replace(str(path), "")) < 3000
        return outcome.message

    return refuse


def assert_within_limits(outcome: Outcome) -> None:
    assert outcome.work_s < MAX_WORK_S, f"{outcome.work_s:.2f} s of work: {outcome.message[:200]}"
    assert outcome.seconds < MAX_SECONDS, f"{outcome.seconds:.2f} s: {outcome.message[:200]}"
    assert outcome.bytes < MAX_BYTES, f"{outcome.bytes / 1e6:.0f} MB: {outcome.message[:200]}"


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": root, "CRYOPLUG_NO_PLUGINS": "1"}
