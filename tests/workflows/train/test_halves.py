"""Laws of a run on halves: which epoch is kept, and that an interruption does not change it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cryoplug.cli.main import run as command_line
from cryoplug.errors import Stopped
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.models.cryo_cnn import CryoCNN
from cryoplug.models.epoch_folders import read_loss
from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.pairs import create_store, open_store
from cryoplug.training.config import TrainConfig
from cryoplug.training.progress import EpochReport, Event
from cryoplug.workflows.train import TrainRequest, TrainResult, train

pytestmark = pytest.mark.usefixtures("no_pictures")

SIDE = 24
CONFIG = TrainConfig(
    epochs=11,
    lr=0.02,
    seed=2,
    batch_size=4,
    val_split=0.5,
    device="cpu",
    threads=1,
    checkpoint_minutes=0.0,
    augment="halves",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six micrographs of two patches, whose halves share a faint signal; the batches do not end with a micrograph."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "store"
    with create_store(path, Manifest((SIDE, SIDE), "float32", "halves", "zscore", 0, SIDE)) as writer:
        for number in range(6):
            for place in range(2 + number % 2):
                common = 0.5 * np.cumsum(rng.standard_normal((SIDE, SIDE)), axis=1) / 4
                even, odd = (common + rng.standard_normal((2, SIDE, SIDE))).astype("<f4")
                writer.append("train", even, odd, (0, place * SIDE))
            writer.acknowledge(MicrographEntry(f"m{number}", "train", (SIDE, 3 * SIDE), 5.0, {"kind": "none"}))
        writer.finish()
    return path


def run(data: Path, out: Path, events: list[Event] | None = None, **changes: Any) -> TrainResult:
    config = dataclasses.replace(CONFIG, **changes)
    request = TrainRequest(data, config, save=True, checkpoint_dir=out, evaluate=False)
    return train(request, (events if events is not None else []).append)


def lines(out: Path) -> list[dict[str, Any]]:
    texts = (out / "cryo_cnn" / "metrics.jsonl").read_text().splitlines()
    return [{**json.loads(text), "seconds": 0, "samples_per_s": 0, "waiting_for_data": 0} for text in texts]


def test_the_kept_epoch_is_the_latest_within_the_error_of_the_lowest(store: Path, tmp_path: Path) -> None:
    result = run(store, tmp_path / "out")
    reports = result.epochs
    assert reports[0].compared is None and all(report.compared for report in reports[1:])
    assert {report.compared.unit for report in reports[1:] if report.compared} == {"micrographs"}
    lowest = 1
    for report in reports[1:]:
        found = report.compared
        assert found is not None and found.epoch == lowest and found.units == 3 and found.standard_error is not None
        assert report.best == (found.difference <= found.standard_error)
        lowest = report.epoch if found.difference < 0 else lowest
    assert result.best_epoch == max(report.epoch for report in reports if report.best)
    # Both kinds must have come up, or this says little.
    assert any(report.compared.difference >= 0 and report.best for report in reports[1:] if report.compared)
    assert any(not report.best for report in reports)
    kept = reports[result.best_epoch - 1]
    folder = load_checkpoint(tmp_path / "out").path
    assert folder is not None and read_loss(folder) == pytest.approx(kept.val_loss, abs=6e-9)
    assert EpochReport.from_record(lines(tmp_path / "out")[-1]).compared == reports[-1].compared


def test_the_loss_is_the_mean_over_all_held_out_patches_each_counted_alike(store: Path, tmp_path: Path) -> None:
    result = run(store, tmp_path / "out", epochs=1)
    held = [int(line) for line in (tmp_path / "out/cryo_cnn/validation_indices.txt").read_text().split()]
    with open_store(store) as opened:
        even, odd = (np.empty((len(held), SIDE, SIDE), np.float32) for _ in range(2))
        opened.read(held, even, odd)
    network = CryoCNN()
    network.load_state_dict(
        {name: torch.from_numpy(w) for name, w in load_checkpoint(tmp_path / "out").weights.items()}
    )
    with torch.no_grad():
        expected = float(((network(torch.from_numpy(even)[:, None])[:, 0] - torch.from_numpy(odd)) ** 2).mean())
    assert result.best_loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("number", [3, 11, 17, 30, 44])
def test_a_run_of_halves_that_is_stopped_goes_on_to_the_same_choice(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run(store, tmp_path / "straight")
    real, calls = CryoCNN.forward, [0]

    def forward(self: nn.Module, images: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
        return real(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(CryoCNN, "forward", forward)
        with pytest.raises(Stopped):
            run(store, tmp_path / "out")
    run(store, tmp_path / "out")
    mine, theirs = load_checkpoint(tmp_path / "out"), load_checkpoint(tmp_path / "straight")
    assert (mine.sha256, mine.details["epoch"]) == (theirs.sha256, theirs.details["epoch"])
    records = [[{**line, "checkpoint": None} for line in lines(tmp_path / name)] for name in ("out", "straight")]
    assert records[0] == records[1]


def test_inspect_finds_nothing_wrong_with_a_kept_epoch_that_is_not_the_lowest(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(store, tmp_path / "out")
    losses = [report.val_loss or 0.0 for report in result.epochs]
    assert losses[result.best_epoch - 1] > min(losses), "choose another learning rate: the lowest was kept"
    assert command_line(["inspect", str(tmp_path / "out")]) == 0
    assert "nothing wrong" in capsys.readouterr().out


def test_patches_of_a_single_held_out_micrograph_are_compared_and_that_is_said(store: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    run(store, tmp_path / "out", events, val_split=0.1, epochs=2)
    last = [event for event in events if isinstance(event, EpochReport)][-1]
    assert last.compared is not None and last.compared.unit == "patches"
    assert "to epoch 1 over" in last.text and last.text.count("patches") == 1


def test_unlike_halves_that_cannot_be_mixed_are_not_said_to_be(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    data = tmp_path / "store"
    with create_store(data, Manifest((SIDE, SIDE), "float32", "halves", "zscore", 0, SIDE)) as writer:
        for number in range(6):
            records = [{"kind": "zscore", "offset": 0.0, "scale": scale} for scale in (1.0, 3.0)]
            writer.append("train", *rng.standard_normal((2, SIDE, SIDE)).astype("<f4"), (0, 0))
            name = f"m{number}.mrc"
            writer.acknowledge(MicrographEntry(name, "train", (SIDE, SIDE), 5.0, records[0], name, records[1]))
        writer.finish()
    events: list[Event] = []
    run(data, tmp_path / "out", events, epochs=1, mix=0.5)
    assert any("share too little signal" in getattr(event, "text", "") for event in events)
    (folder,) = (tmp_path / "out").iterdir()
    assert load_checkpoint(folder).details["training"]["mix"] == 1.0
    assert run(data, tmp_path / "out", epochs=1, mix=0.5).already_finished
