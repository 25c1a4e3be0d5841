"""Atomic writing: a final name holds the old file or the whole new one, never a part."""

from __future__ import annotations

import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cryoplug.disk import atomic
from cryoplug.errors import StorageError


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    atomic.write_bytes(target, b"old")
    with pytest.raises(RuntimeError, match="stop"), atomic.atomic_file(target) as stream:
        stream.write(b"half of the new")
        raise RuntimeError("stop")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_the_file_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b))[1])
    atomic.write_bytes(tmp_path / "a.bin", b"x")
    assert order == ["fsync", "replace", "fsync"]


def test_leftovers_of_processes_that_are_gone_are_removed_and_no_others(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    target = tmp_path / "a.star"
    host = socket.gethostname()
    rest = atomic.partial_path_of(target, host, gone.pid)
    kept = [
        target,
        atomic.partial_path_of(target, host, os.getpid()),
        atomic.partial_path_of(target, "another-host", gone.pid),
        atomic.partial_path_of(tmp_path / "b.star", host, gone.pid),
        tmp_path / rest.name.replace(f".{gone.pid}.", ".x."),
    ]
    for path in [rest, *kept]:
        path.write_text("")
    atomic.remove_leftovers(target)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    rest.write_text("")
    atomic.write_text(target, "whole")
    assert not rest.exists() and target.read_text() == "whole"
    atomic.remove_leftovers(tmp_path / "no such folder" / "a.star")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_a_storage_error_and_the_old_file_stays(tmp_path: Path, monkeypatch, call: str) -> None:
    target = tmp_path / "a.bin"
    atomic.write_bytes(target, b"old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(StorageError, match=r"a\.bin: No space left on device"):
        atomic.write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic.write_bytes(tmp_path / "a.bin", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o640


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic.atomic_folder(tmp_path / "run") as folder:
        (folder / "a").write_text("x")
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    with atomic.atomic_folder(tmp_path / "run") as folder:
        (folder / "a").write_text("x")
    assert (tmp_path / "run" / "a").read_text() == "x"


def test_threads_that_write_the_same_file_at_once_leave_it_whole(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    payloads = [bytes([65 + number]) * 20_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda payload: [atomic.write_bytes(target, payload) for _ in range(20)], payloads))
    assert target.read_bytes() in payloads
    assert os.listdir(tmp_path) == ["report.html"]
