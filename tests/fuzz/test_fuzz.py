"""A short run of ``make fuzz``: the same damaged files every time, and proof that the limits are watched."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from cryoplug.errors import FormatError
from fuzz.limits import BrokenPromise, check
from fuzz.mutations import mutated
from fuzz.targets import NAMES, Target, load

EXAMPLES = 50


@pytest.mark.parametrize("name", NAMES)
def test_an_undamaged_file_is_read(name: str, tmp_path: Path) -> None:
    # Otherwise the damage below would be lost on files that are refused at their first byte.
    for number, seed in enumerate(load(name).seeds()):
        folder = tmp_path / str(number)
        folder.mkdir()
        load(name).run(folder, seed)


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_read_or_refused(name: str) -> None:
    target = load(name)

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(payload=mutated(target.seeds(), target.words))
    def run(payload: bytes) -> None:
        check(target, payload)

    run()


def test_a_long_run_of_digits_in_a_cs_header_takes_no_time() -> None:
    # Found by this fuzzer: the header was matched in exponential time.
    target = load("cs")
    check(target, target.seeds()[0].replace(b"'<u8'", b"9" * 3000))


def _raise_value_error(folder: Path, payload: bytes) -> None:
    raise ValueError(f"{folder}: not an error of cryoplug")


def _refuse_without_path(folder: Path, payload: bytes) -> None:
    raise FormatError("something is wrong")


def _take_memory(folder: Path, payload: bytes) -> None:
    np.ones(20_000_000)


def _take_time(folder: Path, payload: bytes) -> None:
    end = time.process_time() + 1.1
    while time.process_time() < end:
        pass


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (_raise_value_error, "ValueError"),
        (_refuse_without_path, "without its path"),
        (_take_memory, "MB"),
        (_take_time, "s of processor time"),
    ],
)
def test_a_broken_promise_is_noticed(run, message: str) -> None:
    with pytest.raises(BrokenPromise, match=message):
        check(Target(seeds=lambda: (b"",), run=run), b"")
