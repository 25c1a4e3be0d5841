"""A run that ended anywhere goes on to the same bits, or says why it cannot."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from cryoplug.errors import FormatError, OutputBusyError, UsageError
from cryoplug.training.progress import Event, Note
from cryoplug.training.run_folder import RunFolder
from warm_start import WarmStart
from workflows.train.made_runs import digest, final_state, pairs, run, write_bins

pytestmark = pytest.mark.usefixtures("no_pictures")


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_that_ends_at_any_rename_goes_on_to_the_same_bits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    run(data, tmp_path / "straight", checkpoint_minutes=0)
    expected = digest(tmp_path / "straight"), final_state(tmp_path / "straight")
    real, countdown = os.replace, [0]

    def replace(source: Path, target: Path) -> None:
        countdown[0] -= 1
        if countdown[0] == 0 and moment == "before":
            raise Killed
        real(source, target)
        if countdown[0] == 0:
            raise Killed

    monkeypatch.setattr(os, "replace", replace)
    for number in range(1, 200, 3):
        out = tmp_path / str(number)
        countdown[0] = number
        try:
            run(data, out, checkpoint_minutes=0)
        except Killed:
            countdown[0] = 0
            run(data, out, checkpoint_minutes=0)
            assert (digest(out), final_state(out)) == expected
            assert len(list((out / "cryo_cnn").glob("epoch_*"))) == 1
            assert not list(out.rglob("*.cryoplug-partial"))
        else:
            assert number > 20
            return
    raise AssertionError("the run never came to its end")


def test_kill_9_at_any_moment_then_resume_gives_the_same_bits(tmp_path: Path, warm_start: WarmStart) -> None:
    data = write_bins(tmp_path / "data", *pairs(60, 64))
    options = {"patch_size": 64, "batch_size": 1, "checkpoint_minutes": 0.0, "augment": "dihedral"}
    command = [
        *("train", data, "--epochs", 3, "--lr", 0.01, "--val-split", 0.25),
        *("--patch-size", 64, "--batch-size", 1, "--augment", "dihedral", "--checkpoint-minutes", 0),
        *("--device", "cpu", "--threads", 2, "--save", "--checkpoint-dir", tmp_path / "killed", "--resume"),
    ]
    state = tmp_path / "killed" / "cryo_cnn" / "resume" / "state.safetensors"
    for saves in (20, 45):
        child = warm_start.start(*command)
        seen, inode, deadline = 0, 0, time.monotonic() + 120
        while seen < saves and child.poll() is None and time.monotonic() < deadline:
            now = state.stat().st_ino if state.exists() else 0
            seen, inode = seen + (now != inode), now
        child.kill()
        child.communicate()
        assert child.returncode == -signal.SIGKILL, "the run ended before it was killed"
    run(data, tmp_path / "killed", resume=True, **options)
    run(data, tmp_path / "straight", **options)
    assert digest(tmp_path / "killed") == digest(tmp_path / "straight")
    assert final_state(tmp_path / "killed") == final_state(tmp_path / "straight")


def test_a_finished_run_says_so_and_changes_nothing(data: Path, tmp_path: Path) -> None:
    first = run(data, tmp_path / "out")
    before = digest(tmp_path / "out"), final_state(tmp_path / "out")
    events: list[Event] = []
    again = run(data, tmp_path / "out", events=events)
    assert again.already_finished and not first.already_finished
    assert again.epochs == first.epochs and again.checkpoint == first.checkpoint
    assert (digest(tmp_path / "out"), final_state(tmp_path / "out")) == before
    assert any(isinstance(event, Note) and "all 3 epochs are done already" in event.text for event in events)


def test_resume_with_more_epochs_equals_a_longer_run(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "out", epochs=2)
    with pytest.raises(UsageError, match=r"epochs was 2, is 4\); --resume to go on for more epochs"):
        run(data, tmp_path / "out", epochs=4)
    run(data, tmp_path / "out", epochs=4, resume=True)
    run(data, tmp_path / "straight", epochs=4)
    assert final_state(tmp_path / "out") == final_state(tmp_path / "straight")
    with pytest.raises(UsageError, match="epochs was 4, is 3"):
        run(data, tmp_path / "out", epochs=3, resume=True)


def test_another_configuration_is_refused_by_name_unless_overwritten(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "out")
    with pytest.raises(UsageError, match=r"another configuration \(lr was 0\.01, is 0\.02; seed was 0, is 1\)"):
        run(data, tmp_path / "out", lr=0.02, seed=1)
    noisy, clean = pairs()
    with pytest.raises(UsageError, match="data was"):
        run(write_bins(tmp_path / "other", noisy + 1, clean), tmp_path / "out")
    run(data, tmp_path / "out", lr=0.02, seed=1, overwrite=True)
    run(data, tmp_path / "straight", lr=0.02, seed=1)
    assert digest(tmp_path / "out") == digest(tmp_path / "straight")
    assert len(list((tmp_path / "out" / "cryo_cnn").glob("epoch_*"))) == 1


def test_weights_of_unknown_origin_are_not_replaced(data: Path, tmp_path: Path) -> None:
    result = run(data, tmp_path / "out")
    assert result.checkpoint is not None
    shutil.copytree(result.checkpoint, tmp_path / "founding" / "cryo_cnn" / "epoch_0001")
    with pytest.raises(UsageError, match=r"holds epoch_0001 but no run\.json"):
        run(data, tmp_path / "founding")


def test_a_finished_run_without_its_state_is_not_started_again_silently(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "cryo_cnn" / "resume")
    with pytest.raises(UsageError, match="missing, so this finished run cannot be checked"):
        run(data, tmp_path / "out")


def test_a_damaged_state_is_refused(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "out")
    path = tmp_path / "out" / "cryo_cnn" / "resume" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(FormatError, match="damaged"):
        run(data, tmp_path / "out", resume=True, epochs=4)


def test_another_version_of_torch_is_told_as_not_bit_identical(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data, tmp_path / "out", epochs=1)
    monkeypatch.setattr(torch, "__version__", "99.0")
    events: list[Event] = []
    run(data, tmp_path / "out", epochs=2, resume=True, events=events)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("not bit-identical to an uninterrupted run: torch was" in note for note in notes)


def test_a_live_run_is_not_disturbed(data: Path, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "out" / "cryo_cnn"), pytest.raises(OutputBusyError):
        run(data, tmp_path / "out")
