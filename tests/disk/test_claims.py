from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cryoplug.disk import claims as module
from cryoplug.disk.claims import Claims, Owner, process_started
from cryoplug.errors import OutputBusyError, StorageError

HOLD = """
import sys, time
from pathlib import Path
from cryoplug.disk.claims import Claims
with Claims() as claims:
    print(claims.take(Path(sys.argv[1])), flush=True)
    time.sleep(60)
"""
RACE = """
import sys
from pathlib import Path
from cryoplug.disk.claims import Claims
with Claims() as claims:
    sys.stdin.readline()
    won = [name for name in range(200) if claims.take(Path(sys.argv[1], str(name))) is None]
    print(*won, flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "None\n"
        yield child
    finally:
        child.kill()
        child.communicate()


def foreign(path: Path, *, beat: int = 0) -> None:
    """Write the claim of a process on another machine."""
    values = {"host": "node7", "pid": os.getpid(), "started": "1", "machine": "another boot", "beat": f"{beat:012d}"}
    path.write_text(json.dumps(values))


def test_what_one_has_another_cannot_take_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.claim"
    with Claims() as first, Claims() as second:
        assert first.take(path) is None
        assert first.take(path) is None, "taking again what one has is no conflict"
        owner = second.take(path)
        assert owner is not None and owner.pid == os.getpid()
        second.release(path)
        assert path.exists(), "a claim of somebody else is not released"
        first.release(path)
        assert second.take(path) is None
    assert not path.exists()


def test_a_live_process_is_named_and_keeps_its_claim(tmp_path: Path) -> None:
    path = tmp_path / "a.claim"
    with holder(path) as child, Claims(stale_after_s=0) as claims:
        owner = claims.take(path)
        assert owner is not None and owner.pid == child.pid
        assert str(owner).startswith(f"process {child.pid} on ")
        with pytest.raises(OutputBusyError, match=f"out: in use by process {child.pid} on "):
            claims.take_or_fail(path, "out")


def test_a_stopped_process_is_alive(tmp_path: Path) -> None:
    path = tmp_path / "a.claim"
    with holder(path) as child, Claims(stale_after_s=0) as claims:
        os.kill(child.pid, signal.SIGSTOP)
        assert claims.take(path) is not None
        assert claims.take(path) is not None


def test_the_claim_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.claim"
    with holder(path) as child:
        child.kill()
        child.wait()
        assert path.exists()
        with Claims() as claims:
            assert claims.take(path) is None
            assert json.loads(path.read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_process_number_that_was_given_again_does_not_count_as_alive(tmp_path: Path) -> None:
    path = tmp_path / "a.claim"
    with Claims() as claims:
        claims.take(path)
        text = path.read_text()
    path.write_text(text.replace(process_started(os.getpid()), "7"))
    with Claims() as claims:
        assert claims.take(path) is None


def test_a_claim_of_another_machine_is_dead_only_after_standing_still(tmp_path: Path) -> None:
    path = tmp_path / "a.claim"
    foreign(path)
    with Claims(stale_after_s=0.3) as claims:
        for beat in range(1, 4):
            time.sleep(0.15)
            foreign(path, beat=beat)
            assert claims.take(path) == Owner("node7", os.getpid(), "1", "another boot")
        time.sleep(0.35)
        assert claims.take(path) is None


def test_times_of_files_and_clocks_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "a.claim"
    foreign(path)
    os.utime(path, (0, 0))
    with Claims(stale_after_s=30) as claims:
        assert claims.take(path) is not None
        assert claims.take(path) is not None


def test_the_owner_shows_signs_of_life_while_it_works(tmp_path: Path) -> None:
    path = tmp_path / "a.claim"
    with Claims(beat_s=0.02) as claims:
        claims.take(path)
        first = path.read_text()
        deadline = time.monotonic() + 10
        while path.read_text() == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_one_output_alone_waits_to_see_whether_the_other_machine_lives(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_POLL_S", 0.02)
    path = tmp_path / "a.claim"
    foreign(path)
    with Claims(stale_after_s=0.2) as claims:
        claims.take_or_fail(path, "out")
    foreign(path)
    ended = threading.Event()

    def live() -> None:
        beat = 0
        while not ended.wait(0.02):
            beat += 1
            foreign(tmp_path / "new", beat=beat)
            os.replace(tmp_path / "new", path)

    worker = threading.Thread(target=live)
    worker.start()
    try:
        with Claims(stale_after_s=5) as claims, pytest.raises(OutputBusyError, match="node7"):
            claims.take_or_fail(path, "out")
    finally:
        ended.set()
        worker.join()


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "\x00\x01", '{"host": 1}'])
def test_a_damaged_claim_counts_like_one_of_another_machine(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.claim"
    path.write_text(text)
    with Claims(stale_after_s=0.1) as claims:
        assert str(claims.take(path)) == "an unknown process"
        time.sleep(0.12)
        assert claims.take(path) is None


def test_of_many_processes_each_thing_has_one_owner(tmp_path: Path) -> None:
    for name in range(0, 200, 2):  # every second one was left by a process that is dead
        with Claims() as claims:
            claims.take(tmp_path / str(name))
            text = (tmp_path / str(name)).read_text()
        (tmp_path / str(name)).write_text(text.replace(process_started(os.getpid()), "7"))
    children = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    won = [child.stdout.readline().split() for child in children]
    for child in children:
        child.communicate("end\n")
    assert sorted(int(name) for part in won for name in part) == list(range(200))
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_was_given_up_for_dead_is_left_to_its_new_owner(tmp_path: Path) -> None:
    path = tmp_path / "a.claim"
    with Claims() as claims:
        claims.take(path)
        path.unlink()
        foreign(path)
    assert json.loads(path.read_text())["host"] == "node7"


def test_a_full_disk_is_a_storage_error_and_leaves_no_claim(tmp_path: Path, monkeypatch) -> None:
    def full(descriptor: int, payload: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with Claims() as claims, pytest.raises(StorageError, match=r"a\.claim: No space left"):
        claims.take(tmp_path / "a.claim")
    assert list(tmp_path.iterdir()) == []
