"""The U-Net and the whole recipe: bit for bit after an interruption, averages, early ends, minutes."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cryoplug.errors import Stopped, UsageError
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.models.cryo_cnn import CryoCNN
from cryoplug.models.registry import CRYO_CNN
from cryoplug.training.pace import Pace
from cryoplug.training.progress import EpochReport, Event, Note
from cryoplug.workflows.train import TrainRequest, train
from workflows.train.made_runs import CONFIG, digest, pairs, run

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_a_unet_learns_goes_on_bit_for_bit_and_keeps_its_options(data: Path, tmp_path: Path) -> None:
    options = {"depth": 2, "width": 4}
    recipe: dict[str, Any] = {"model": "unet", "model_options": options, "lr": 0.002}
    straight = run(data, tmp_path / "a", epochs=20, **recipe)
    assert straight.best_loss < 0.6 * straight.first_batch_loss
    run(data, tmp_path / "b", epochs=7, **recipe)
    resumed = run(data, tmp_path / "b", epochs=20, resume=True, **recipe)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert [epoch.val_loss for epoch in resumed.epochs] == [epoch.val_loss for epoch in straight.epochs]
    assert load_checkpoint(tmp_path / "a").config == options
    with pytest.raises(UsageError, match="model_options depth was 2, is 1"):
        run(data, tmp_path / "a", epochs=20, **{**recipe, "model_options": {"depth": 1, "width": 4}})
    # A start from a checkpoint takes over its options.
    run(data, tmp_path / "c", model="unet", init=tmp_path / "a", epochs=1)
    assert load_checkpoint(tmp_path / "c").config == options


RECIPE: dict[str, Any] = {
    "loss": "charbonnier",
    "schedule": "cosine",
    "warmup_steps": 2,
    "clip_norm": 0.05,
    "ema": 0.9,
    "augment": "halves",
    "patience": 3,
}


def state_tensors(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "cryo_cnn" / "resume" / "state.safetensors")


@pytest.mark.parametrize("number", [2, 7, 9, 12, 14])
def test_a_run_with_the_whole_recipe_goes_on_to_the_same_bits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run(data, tmp_path / "straight", **RECIPE)
    real, calls = CryoCNN.forward, [0]

    def forward(self: nn.Module, images: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == number:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        return real(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(CryoCNN, "forward", forward)
        with pytest.raises(Stopped):
            run(data, tmp_path / "out", **RECIPE)
    run(data, tmp_path / "out", **RECIPE)
    assert digest(tmp_path / "out") == digest(tmp_path / "straight")
    mine, theirs = state_tensors(tmp_path / "out"), state_tensors(tmp_path / "straight")
    assert {name.partition("/")[0] for name in mine} == {"weights", "average", "exp_avg", "exp_avg_sq"}
    assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)


def test_the_checkpoint_holds_the_average_and_names_the_recipe(data: Path, tmp_path: Path) -> None:
    result = run(data, tmp_path / "out", **{**RECIPE, "patience": None}, epochs=1)
    kept, state = load_checkpoint(tmp_path / "out"), state_tensors(tmp_path / "out")
    for name, array in kept.weights.items():
        assert np.array_equal(array, state[f"average/{name}"])
        assert not np.array_equal(array, state[f"weights/{name}"])
    for name, value in RECIPE.items():
        assert kept.details["training"][name] == (None if name == "patience" else value)
    # The validation loss is the average's own: measured again by the formula.
    noisy, clean = (torch.from_numpy(side)[10:, None] for side in pairs())
    with torch.no_grad():
        network = CRYO_CNN.build()
        network.load_state_dict({name: torch.from_numpy(array) for name, array in kept.weights.items()})
        expected = ((network(noisy) - clean) ** 2 + 1e-6).sqrt().mean().item()
    assert result.best_loss == pytest.approx(expected, rel=1e-4)
    report = result.epochs[0].record()
    assert report["loss_name"] == "charbonnier" and "val_rmse" not in report and "RMSE" not in result.epochs[0].text


def test_a_run_that_no_longer_improves_ends_early_and_stays_finished(data: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    result = run(data, tmp_path / "out", events=events, epochs=30, lr=0.3, patience=2)
    assert len(result.epochs) == result.best_epoch + 2 < 30
    assert Note(f"ended early: no epoch since {result.best_epoch} was better (--patience 2)") in events
    again = run(data, tmp_path / "out", events=events, epochs=30, lr=0.3, patience=2)
    assert again.already_finished and again.epochs == result.epochs


def test_minutes_fix_a_number_of_steps_and_an_interrupted_run_keeps_to_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(CONFIG, minutes=1.0, epochs=1, schedule="cosine", warmup_steps=2)
    monkeypatch.setattr(Pace, "news", lambda pace, step: 8)
    straight = train(TrainRequest(data, config, save=True, checkpoint_dir=tmp_path / "straight"), lambda event: None)
    assert len(straight.epochs) == 3, "3 steps an epoch: two whole ones and one of 2 steps"

    def stop(event: Event) -> None:
        if isinstance(event, EpochReport) and event.epoch == 2:
            raise RuntimeError("killed")

    request = TrainRequest(data, config, save=True, checkpoint_dir=tmp_path / "broken")
    with pytest.raises(RuntimeError, match="killed"):
        train(request, stop)
    monkeypatch.setattr(Pace, "news", lambda pace, step: None)
    again = train(request, lambda event: None)
    assert [epoch.train_loss for epoch in again.epochs] == [epoch.train_loss for epoch in straight.epochs]
    assert train(request, lambda event: None).already_finished


def test_a_plan_is_told_again_only_if_it_changes_much_and_too_few_steps_once(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = {1: 120, 2: 110, 3: 99, 4: 90, 5: 60}
    monkeypatch.setattr(Pace, "news", lambda pace, step: plans.get(step, 8))
    events: list[Event] = []
    train(TrainRequest(data, dataclasses.replace(CONFIG, minutes=1.0, epochs=1)), events.append)
    told = [event.text for event in events if isinstance(event, Note) and event.text.startswith("--minutes 1: ")]
    assert [int(text.split()[2]) for text in told] == [120, 99, 60, 8]
    assert ["too few" in text for text in told] == [False, True, False, False]
