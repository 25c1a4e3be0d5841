"""Signals: finished files are kept and the same command goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from cryoplug.core.results import BatchResult, FileResult
from cryoplug.errors import Stopped
from cryoplug.formats.mrc import MrcMicrograph, write_mrc
from cryoplug.workflows.denoise import DenoiseRequest, denoise
from workflows.denoise.denoising import go, micrographs, partials, pixels, statuses


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_keeps_finished_files_and_the_same_command_goes_on(here, checkpoints, number, code):
    paths = micrographs(here, "abcdefghijkl")
    before = signal.getsignal(number)
    seen: list[FileResult] = []

    def progress(result: FileResult) -> None:
        seen.append(result)
        if len(seen) == 2:
            os.kill(os.getpid(), number)
            # The writer waits until the main thread has heard of it.
            threading.Event().wait(0.3)

    request = DenoiseRequest(tuple(map(str, paths)), checkpoints[0], Path("out"), device="cpu", threads=1)
    with pytest.raises(Stopped, match="of 12 micrographs are finished") as caught:
        denoise(request, progress)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before
    assert not partials(here)
    finished = len(list(Path("out").glob("*.mrc")))
    assert 2 <= finished < 12
    assert sorted(statuses(denoise(request))) == ["done"] * (12 - finished) + ["skipped"] * finished


def test_sigusr1_is_answered_and_everything_goes_on(here, checkpoints):
    paths = micrographs(here, "abcd")
    notes: list[str] = []

    def progress(result: FileResult) -> None:
        if result.input.name == "b.mrc":
            os.kill(os.getpid(), signal.SIGUSR1)
            threading.Event().wait(0.3)

    request = DenoiseRequest(tuple(map(str, paths)), checkpoints[0], Path("out"), device="cpu", threads=1)
    assert statuses(denoise(request, progress, notes.append)) == ["done"] * 4
    assert notes == ["SIGUSR1: 2 finished micrographs are on the disk already; going on"]


def test_a_stop_is_heeded_while_a_micrograph_is_measured(here, checkpoints, monkeypatch):
    write_mrc(here / "tall.mrc", pixels(0, (60000, 20)))
    real = MrcMicrograph.read_rows
    reads = []

    def slow(self: MrcMicrograph, start: int, stop: int) -> np.ndarray:
        reads.append(start)
        if len(reads) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(0.05)
        return real(self, start, stop)

    monkeypatch.setattr(MrcMicrograph, "read_rows", slow)
    began = time.monotonic()
    with pytest.raises(Stopped, match="0 of 1 micrographs"):
        go(checkpoints[0], "tall.mrc")
    assert len(reads) < 10, "235 bands are measured four times, 47 s at this pace"
    assert time.monotonic() - began < 20
    assert not partials(here)


def test_outside_of_the_main_thread_no_signal_handler_is_set(here, checkpoints):
    micrographs(here, "a")
    found: list[BatchResult] = []
    worker = threading.Thread(target=lambda: found.append(go(checkpoints[0], "a.mrc")))
    worker.start()
    worker.join()
    assert statuses(found[0]) == ["done"]
