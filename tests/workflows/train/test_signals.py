"""Signals: the state is saved and the same command goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cryoplug.errors import Stopped
from cryoplug.training.progress import EpochReport, Event, Note
from cryoplug.workflows.train import TrainRequest, train
from workflows.train.made_runs import CONFIG, digest, final_state, run

pytestmark = pytest.mark.usefixtures("no_pictures")


def stop_after_first_epoch(number: int, events: list[Event]) -> Callable[[Event], None]:
    def progress(event: Event) -> None:
        events.append(event)
        if isinstance(event, EpochReport) and event.epoch == 1:
            os.kill(os.getpid(), number)

    return progress


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_state_and_the_same_command_goes_on(
    data: Path, tmp_path: Path, number: int, code: int
) -> None:
    request = TrainRequest(data, CONFIG, save=True, checkpoint_dir=tmp_path / "out")
    handlers = [signal.getsignal(item) for item in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    with pytest.raises(Stopped, match="is saved; the same command goes on from there") as raised:
        train(request, stop_after_first_epoch(number, []))
    assert raised.value.exit_code == code
    assert handlers == [signal.getsignal(item) for item in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    run(data, tmp_path / "out")
    run(data, tmp_path / "straight")
    assert digest(tmp_path / "out") == digest(tmp_path / "straight")


def test_sigusr1_saves_at_once_and_goes_on(data: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    request = TrainRequest(data, CONFIG, save=True, checkpoint_dir=tmp_path / "out")
    assert len(train(request, stop_after_first_epoch(signal.SIGUSR1, events)).epochs) == 3
    assert Note("state of epoch 2, batch 0 saved") in events


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_heeded_within_a_batch_and_no_bit_changes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    pieces = []
    real = torch.nn.Conv2d.forward

    def forward(self: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        if self.in_channels == 1:
            pieces.append(images.shape)
            if len(pieces) == 2:  # in the middle of the first batch, in a worker thread
                os.kill(os.getpid(), number)
                time.sleep(1)  # the main thread sees to signals, also on a busy machine
        return real(self, images)

    events: list[Event] = []
    request = TrainRequest(data, CONFIG, save=True, checkpoint_dir=tmp_path / "out")
    monkeypatch.setattr(torch.nn.Conv2d, "forward", forward)
    if number == signal.SIGTERM:
        with pytest.raises(Stopped, match="the state of epoch 1, batch 0 is saved"):
            train(request, events.append)
        assert len(pieces) < 6
    else:
        train(request, events.append)
        assert Note("state of epoch 1, batch 0 saved") in events
    run(data, tmp_path / "out")
    run(data, tmp_path / "straight")
    assert digest(tmp_path / "out") == digest(tmp_path / "straight")
    assert final_state(tmp_path / "out") == final_state(tmp_path / "straight")
