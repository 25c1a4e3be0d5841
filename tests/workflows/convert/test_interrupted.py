"""Runs that end early: a full disk, signals, kill -9; the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from cryoplug.errors import OutputBusyError, StorageError
from cryoplug.store.pairs import open_store
from cryoplug.store.raw import RawWriter
from cryoplug.store.writer import StoreWriter
from cryoplug.workflows.convert import convert
from warm_start import Child
from workflows.convert.made_inputs import (
    content,
    folder_of,
    image,
    names,
    request,
    write,
)


def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "in", 4)
    convert(request(folder, tmp_path / "t"))
    real, left = os.pwrite, [70]

    def full(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StorageError, match="No space left on device") as caught:
            convert(request(folder, tmp_path / "s"))
    assert caught.value.exit_code == 5
    assert all(name.endswith(".cryoplug-partial") for name in names(tmp_path / "s"))
    result = convert(request(folder, tmp_path / "s"))
    assert [item.status for item in result.files] == ["skipped", "skipped", "done", "done"]
    assert content(tmp_path / "s") == content(tmp_path / "t")


def acknowledged(folder: Path) -> int:
    journal = folder / ".dataset.json.cryoplug-partial"
    return journal.read_bytes().count(b'"entry"') if journal.exists() else 0


@pytest.mark.parametrize("format", ["bin", "hdf5"])
def test_killed_twice_the_same_command_gives_the_same_bytes(tmp_path, warm_start, format):
    shape = (1100, 1100)
    for i in range(5):
        write(tmp_path / "in" / f"m{i}.mrc", image(i, shape))
    options = ("convert", tmp_path / "in", "--patch-size", 256, "--stride", 128, "--format", format)
    assert warm_start.start(*options, "-o", tmp_path / "t").wait(timeout=120) == 0
    for goal in (1, 3):
        run = warm_start.start(*options, "-o", tmp_path / "s")
        partial = tmp_path / "s" / ".dataset.h5.cryoplug-partial"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and run.poll() is None:
            if format == "bin" and acknowledged(tmp_path / "s") >= goal:
                break
            if format == "hdf5" and partial.exists() and partial.stat().st_size > goal * 10_000_000:
                break
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        assert all(name.endswith(".cryoplug-partial") for name in names(tmp_path / "s"))
    assert warm_start.start(*options, "-o", tmp_path / "s").wait(timeout=120) == 0
    if format == "bin":
        assert content(tmp_path / "s") == content(tmp_path / "t")
    assert names(tmp_path / "s") == names(tmp_path / "t")
    with open_store(tmp_path / "s") as one, open_store(tmp_path / "t") as two:
        assert one.manifest == two.manifest
        assert one.verify() == []


def wait_for_acknowledged(run: Child, folder: Path, goal: int) -> None:
    deadline = time.monotonic() + 60
    while acknowledged(folder) < goal and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_between_two_patches_and_the_same_command_goes_on(tmp_path, warm_start, number):
    for i in range(6):
        write(tmp_path / "in" / f"m{i}.mrc", image(i, (1100, 1100)))
    command = ("convert", tmp_path / "in", "--patch-size", 256, "--stride", 128, "-o")
    assert warm_start.start(*command, tmp_path / "t").wait(timeout=120) == 0
    run = warm_start.start(*command, tmp_path / "s")
    wait_for_acknowledged(run, tmp_path / "s", 2)
    run.send_signal(number)
    began = time.monotonic()
    said = run.communicate(timeout=60)[1]
    assert time.monotonic() - began < 20
    assert run.returncode == 128 + number
    done = acknowledged(tmp_path / "s")
    assert 2 <= done < 6
    assert (
        f"stopped by {number.name}: {done} of 6 micrographs are safe in {tmp_path}/s; the same command goes on" in said
    )
    assert "Traceback" not in said
    assert all(name.endswith(".cryoplug-partial") and "lock" not in name for name in names(tmp_path / "s"))
    again = warm_start.start(*command, tmp_path / "s", "--json")
    lines, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert [json.loads(line).get("status") for line in lines.splitlines()][:6].count("skipped") == done
    assert content(tmp_path / "s") == content(tmp_path / "t")


def test_the_warning_signal_makes_safe_what_is_complete_and_the_work_goes_on(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "in", 4)
    convert(request(folder, tmp_path / "t"))
    safe = []
    real = RawWriter.wait_until_safe

    def wait_until_safe(writer: RawWriter) -> None:
        real(writer)
        safe.append((len(writer.acknowledged), acknowledged(tmp_path / "s")))

    monkeypatch.setattr(RawWriter, "wait_until_safe", wait_until_safe)
    result = convert(request(folder, tmp_path / "s"), lambda item: os.kill(os.getpid(), signal.SIGUSR1))
    assert [item.status for item in result.files] == ["done"] * 4
    assert safe == [(1, 1), (2, 2), (3, 3)]
    assert content(tmp_path / "s") == content(tmp_path / "t")


def test_a_live_convert_is_not_disturbed_and_a_dead_one_is_followed(tmp_path, warm_start):
    for i in range(3):
        write(tmp_path / "in" / f"m{i}.mrc", image(i, (1100, 1100)))
    options = (tmp_path / "in", "--patch-size", 256, "--stride", 16, "-o", tmp_path / "s")
    first = warm_start.start("convert", *options)
    lock = tmp_path / "s" / ".dataset.lock.cryoplug-partial"
    try:
        while not (lock.exists() and lock.stat().st_size) and first.poll() is None:
            time.sleep(0.002)
        first.send_signal(signal.SIGSTOP)
        with pytest.raises(OutputBusyError, match=f"s: in use by process {first.pid} on ") as caught:
            convert(request(tmp_path / "in", tmp_path / "s", patch_size=256, stride=128))
        assert caught.value.exit_code == 8
    finally:
        first.kill()
        first.wait()
    assert lock.exists()
    assert convert(request(tmp_path / "in", tmp_path / "s", patch_size=256, stride=128)).exit_code == 0
    assert not lock.exists()


def test_an_interrupted_convert_of_a_changed_input_starts_again(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "in", 3)

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(StoreWriter, "finish", lambda *_, **__: stopped())
        convert(request(folder, tmp_path / "s"))
    assert acknowledged(tmp_path / "s") == 3
    (folder / "mic_1.mrc").unlink()
    write(folder / "mic_1.mrc", image(77))
    convert(request(folder, tmp_path / "s"))
    convert(request(folder, tmp_path / "t"))
    assert content(tmp_path / "s") == content(tmp_path / "t")
