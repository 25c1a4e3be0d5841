"""Training: losses of a plain loop, one epoch kept, and what a run writes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from cryoplug.errors import UsageError
from cryoplug.models.checkpoint import load_checkpoint, save_checkpoint
from cryoplug.models.registry import CRYO_CNN, ModelSpec
from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.pairs import create_store, open_store
from cryoplug.training.progress import BatchReport, EpochReport, Event, Note
from cryoplug.workflows.train import TrainRequest, train
from workflows.train.made_runs import CONFIG, SIDE, digest, pairs, run

pytestmark = pytest.mark.usefixtures("no_pictures")


def plain_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 1, 3, padding=1),
    )


def test_losses_agree_with_a_plain_loop_on_equal_batches(data: Path) -> None:
    noisy, clean = (torch.from_numpy(side)[:, None] for side in pairs())
    network = plain_network()
    with torch.no_grad():
        for mine, theirs in zip(network.parameters(), CRYO_CNN.build(seed=5).parameters(), strict=True):
            mine.copy_(theirs)
    optimizer = torch.optim.Adam(network.parameters(), lr=CONFIG.lr)
    expected = []
    for _ in range(3):
        total = 0.0
        for start in range(0, 10, 4):
            part = slice(start, min(10, start + 4))
            loss = functional.mse_loss(network(noisy[part]), clean[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * (part.stop - part.start)
        with torch.no_grad():
            expected.append((total / 10, functional.mse_loss(network(noisy[10:]), clean[10:]).item()))
    result = run(data, shuffle=False, seed=5)
    found = [(epoch.train_loss, epoch.val_loss) for epoch in result.epochs]
    assert found == [pytest.approx(pair, rel=1e-3) for pair in expected]


def run_plain(program: Path, data: Path, *words: object) -> dict[str, Any]:
    command = [sys.executable, program, data, "--size", SIDE, "--device", "cpu", "--batch-size", 16, *words]
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_losses_agree_with_the_plain_program_and_it_reads_our_weights(
    plain_program: Path, data: Path, tmp_path: Path
) -> None:
    # All training patches are one batch: then its own shuffling makes no difference.
    first = CRYO_CNN.build(seed=3)
    weights = {name: tensor.numpy() for name, tensor in first.state_dict().items()}
    from cryoplug.models.checkpoint import Checkpoint

    save_checkpoint(tmp_path / "first", Checkpoint("cryo_cnn", weights), 1.0)
    (tmp_path / "held.txt").write_text("2\n7\n11\n")
    ours = run(
        data, tmp_path / "out", batch_size=16, init=tmp_path / "first", val_indices=tmp_path / "held.txt", epochs=4
    )
    indices = tmp_path / "out" / "cryo_cnn" / "validation_indices.txt"
    words = ("--val-indices", indices, "--epochs", 4, "--lr", 0.01, "--init", tmp_path / "first")
    theirs = run_plain(plain_program, data, *words)
    assert [epoch.train_loss for epoch in ours.epochs] == pytest.approx(theirs["train_loss"], rel=1e-3)
    assert [epoch.val_loss for epoch in ours.epochs] == pytest.approx(theirs["val_loss"], rel=1e-3)
    words = ("--val-indices", indices, "--epochs", 1, "--lr", 0, "--init", ours.checkpoint)
    assert run_plain(plain_program, data, *words)["val_loss"][0] == pytest.approx(ours.best_loss, rel=1e-5)


def test_a_finished_run_leaves_one_epoch_and_everything_beside_it(data: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    result = run(data, tmp_path / "out", events=events)
    folder = tmp_path / "out" / "cryo_cnn"
    assert sorted(item.name for item in folder.iterdir()) == [
        f"epoch_{result.best_epoch:04d}",
        "metrics.jsonl",
        "resume",
        "run.json",
        "validation_indices.txt",
    ]
    reports = [event for event in events if isinstance(event, EpochReport)]
    assert reports == list(result.epochs) and len(reports) == 3
    assert result.best_loss == min(report.val_loss for report in reports if report.val_loss is not None)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["val_loss"] for line in lines] == [report.val_loss for report in reports]
    assert all(line["val_rmse"] == pytest.approx(line["val_loss"] ** 0.5) for line in lines)
    assert (folder / "validation_indices.txt").read_text() == "10\n11\n12\n"
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert result.checkpoint is not None
    assert float((result.checkpoint / "loss.txt").read_text()) == pytest.approx(result.best_loss, abs=1e-8)
    kept = load_checkpoint(folder)
    assert kept.path == result.checkpoint and kept.normalize == "percentile"
    assert kept.details["epoch"] == result.best_epoch and kept.details["val_loss"] == result.best_loss
    assert {"data_fingerprint", "train_loss", "software"} <= set(kept.details)


def test_without_save_nothing_is_written_and_that_is_said(data: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    before = sorted(tmp_path.rglob("*"))
    assert run(data, events=events).checkpoint is None
    assert sorted(tmp_path.rglob("*")) == before
    assert Note("nothing will be saved; give --save to keep the best checkpoint") in events


def test_the_same_command_gives_the_same_bits_whatever_the_threads(data: Path, tmp_path: Path) -> None:
    for name, threads in (("a", 1), ("b", 2), ("c", 4)):
        run(data, tmp_path / name, threads=threads, augment="dihedral")
    assert digest(tmp_path / "a") == digest(tmp_path / "b") == digest(tmp_path / "c")


def test_every_hundredth_batch_is_reported(data: Path) -> None:
    events: list[Event] = []
    run(data, events=events, epochs=1, val_split=0.0, batch_size=1, patch_size=4)
    reports = [event for event in events if isinstance(event, BatchReport)]
    assert [report.batch for report in reports] == list(range(100, 13 * 36 + 1, 100))
    assert all(report.batches == 13 * 36 and report.samples_per_s > 0 for report in reports)
    assert reports[0].text.startswith("epoch 1 batch 100/468: loss 0.")


def test_max_batches_limits_training_and_validation(data: Path) -> None:
    full, short = run(data, epochs=1, batch_size=2), run(data, epochs=1, batch_size=2, max_batches=1)
    assert short.first_batch_loss == full.first_batch_loss == short.epochs[0].train_loss
    assert short.epochs[0].val_loss != full.epochs[0].val_loss


def test_without_validation_the_best_epoch_is_by_training_loss(data: Path, tmp_path: Path) -> None:
    result = run(data, tmp_path / "out", val_split=0.0)
    assert all(epoch.val_loss is None for epoch in result.epochs)
    assert result.best_loss == min(epoch.train_loss for epoch in result.epochs)
    assert (tmp_path / "out" / "cryo_cnn" / "validation_indices.txt").read_text() == ""


def test_weights_of_another_network_are_refused_as_a_start(data: Path, tmp_path: Path, seed_checkpoints: Path) -> None:
    with pytest.raises(UsageError, match="holds residual_cnn, but --model is cryo_cnn"):
        run(data, init=seed_checkpoints / "deep12", given=frozenset({"model"}))
    with pytest.raises(UsageError, match="holds residual_cnn, but --model is unet"):
        run(data, init=seed_checkpoints / "deep12", model="unet")
    start = run(data, tmp_path / "out", init=seed_checkpoints / "cryo_cnn", lr=1e-9, epochs=1)
    found, given = load_checkpoint(tmp_path / "out"), load_checkpoint(seed_checkpoints / "cryo_cnn")
    assert all(np.allclose(found.weights[name], given.weights[name], atol=1e-7) for name in given.weights)
    assert start.best_epoch == 1


def test_resume_needs_save_and_excludes_overwrite(data: Path) -> None:
    with pytest.raises(UsageError, match="needs --save; --resume goes on and --overwrite"):
        TrainRequest(data, CONFIG, resume=True, overwrite=True)


def test_a_store_with_a_manifest_is_split_by_micrograph_and_recorded(tmp_path: Path) -> None:
    noisy, clean = pairs(12)
    head = Manifest((SIDE, SIDE), "float32", "halves", "zscore", seed=0, stride=SIDE)
    with create_store(tmp_path / "store", head) as writer:
        for micrograph in range(4):
            for place in range(3):
                index = 3 * micrograph + place
                writer.append("train", noisy[index], clean[index], (0, place * SIDE))
            writer.acknowledge(MicrographEntry(f"m{micrograph}.mrc", "train", (SIDE, 3 * SIDE), 1.5, {"kind": "none"}))
        writer.finish()
    run(tmp_path / "store", tmp_path / "out")
    held = [int(line) for line in (tmp_path / "out/cryo_cnn/validation_indices.txt").read_text().split()]
    assert len(held) == 3 and len({index // 3 for index in held}) == 1
    kept = load_checkpoint(tmp_path / "out")
    assert (kept.normalize, kept.pixel_size_angstrom, kept.details["pairs"]) == ("zscore", 1.5, "halves")
    with open_store(tmp_path / "store") as store:
        assert store.manifest is not None
        assert kept.details["data_fingerprint"] == store.manifest.fingerprint()


class Averaging(nn.Module):
    """A network whose layers look at the whole batch: bands must not be used."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.norm = nn.InstanceNorm2d(1, affine=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + self.norm(self.conv(images))


def test_a_plugin_network_without_founding_layers_trains_and_loads(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Averaging()

    spec = ModelSpec("averaging", "", build, receptive_field_px=1)
    monkeypatch.setattr("cryoplug.extensions.load_all", lambda group, **_: {"averaging": spec})
    result = run(data, tmp_path / "out", model="averaging")
    kept = load_checkpoint(tmp_path / "out")
    assert kept.model_id == "averaging" and kept.path == result.checkpoint
    assert "conv.weight" in kept.weights


def test_the_loss_curve_is_drawn(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    run(data, tmp_path / "out", epochs=2)
    assert (tmp_path / "out" / "cryo_cnn" / "loss_curve.png").read_bytes().startswith(b"\x89PNG")


def test_sides_of_a_store_that_are_not_halves_are_never_exchanged(tmp_path: Path) -> None:
    store = tmp_path / "store"
    head = Manifest((SIDE, SIDE), "float32", "noise", "percentile", 0, SIDE)
    with create_store(store, head) as writer:
        noisy, clean = pairs(2)
        for index in range(2):
            writer.append("train", noisy[index], clean[index], (0, 0))
            writer.acknowledge(MicrographEntry(f"m{index}", "train", (SIDE, SIDE), 1.0, {"kind": "percentile"}))
        writer.finish()
    with pytest.raises(UsageError, match=r"a store of --pairs noise; its sides must not be exchanged; give --augment"):
        run(store, augment="halves")


def test_a_network_of_two_outputs_is_refused_because_a_store_has_one_target(data: Path) -> None:
    config = dataclasses.replace(CONFIG, model="unet", model_options={"depth": 1, "width": 2, "outputs": 2})
    with pytest.raises(
        UsageError, match="outputs=2: the network gives image and particles, but a store has one target"
    ):
        train(TrainRequest(data, config), lambda event: None)


def test_a_training_opens_its_store_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryoplug.store import pairs as pairs_module

    real, opened = pairs_module.find_layout, []
    monkeypatch.setattr(pairs_module, "find_layout", lambda *named: opened.append(named) or real(*named))
    run(data, tmp_path / "out")
    assert len(opened) == 1
