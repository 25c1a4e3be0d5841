"""Inspect of checkpoints and run folders: bit for bit agreement, finite weights, epochs, the best one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.workflows.inspect import Inspection, inspect_path


def messages(inspection: Inspection, *severities: str) -> str:
    wanted = severities or ("error", "warning")
    return "\n".join(f"{item.field}: {item.message}" for item in inspection.findings if item.severity in wanted)


def checkpoint(folder: Path, *, seed: int = 0, loss: float = 0.25) -> Path:
    rng = np.random.default_rng(seed)
    shapes = model_spec("cryo_cnn").weight_shapes()
    weights = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    save_checkpoint(folder, Checkpoint("cryo_cnn", weights, pixel_size_angstrom=1.5), loss)
    return folder


def test_sound_checkpoint_has_its_layers_and_loss(tmp_path: Path) -> None:
    found = inspect_path(checkpoint(tmp_path / "epoch_0003"))
    assert (found.kind, found.wrong) == ("checkpoint", False), messages(found)
    assert (found.summary["model"], found.summary["parameters"]) == ("cryo_cnn", 2625)
    assert found.summary["loss"] == pytest.approx(0.25)
    assert found.summary["layers"]["conv1.weight"] == [16, 1, 3, 3]
    assert found.summary["stored_in"].endswith("equal bit for bit")


def test_one_changed_bit_between_bin_and_safetensors_is_an_error(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "epoch_0003")
    payload = bytearray((folder / "conv2_bias.bin").read_bytes())
    payload[0] ^= 1
    (folder / "conv2_bias.bin").write_bytes(payload)
    found = inspect_path(folder)
    assert "conv2.bias" in messages(found, "error")
    assert "stored_in" not in found.summary


def test_weights_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "epoch_0003")
    for name in ("model.safetensors", "checkpoint.json"):
        (folder / name).unlink()
    np.full(16, np.nan, "<f4").tofile(folder / "conv1_bias.bin")
    assert "16 of 16" in messages(inspect_path(folder), "error")


def test_seed_checkpoints_are_sound(seed_checkpoints: Path) -> None:
    found = inspect_path(seed_checkpoints)
    assert not found.wrong, messages(found)
    assert {name: item["checkpoint"]["model"] for name, item in found.summary["runs"].items()} == {
        "cryo_cnn": "cryo_cnn",
        "deep12": "residual_cnn",
        "n2n_real": "residual_cnn",
    }


def a_run(folder: Path, losses: dict[int, float], *, kept: tuple[int, ...]) -> Path:
    folder.mkdir()
    for epoch in kept:
        checkpoint(folder / f"epoch_{epoch:04d}", seed=epoch, loss=losses[epoch])
    lines = [
        json.dumps({"epoch": epoch, "train_loss": loss * 2, "val_loss": loss}) + "\n" for epoch, loss in losses.items()
    ]
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


def test_sound_run_has_its_epochs_and_its_best(tmp_path: Path) -> None:
    found = inspect_path(a_run(tmp_path / "run", {1: 0.5, 2: 0.25, 3: 0.3}, kept=(2,)))
    assert (found.kind, found.wrong) == ("run", False), messages(found)
    assert found.summary["epochs_done"] == 3
    assert (found.summary["best"], found.summary["best_loss"]) == ("epoch_0002", 0.25)
    assert found.summary["checkpoint"]["parameters"] == 2625


def test_more_than_one_epoch_folder_is_wrong(tmp_path: Path) -> None:
    found = inspect_path(a_run(tmp_path / "run", {1: 0.5, 2: 0.25}, kept=(1, 2)))
    assert "2 epoch folders (epoch_0001, epoch_0002)" in messages(found, "warning")
    assert found.summary["best"] == "epoch_0002"


def test_kept_epoch_that_is_not_the_best_is_wrong(tmp_path: Path) -> None:
    found = inspect_path(a_run(tmp_path / "run", {1: 0.5, 2: 0.25}, kept=(1,)))
    assert "epoch 2 had 0.25" in messages(found, "warning")


def test_loss_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "run", {1: 0.5}, kept=(1,))
    with open(folder / "metrics.jsonl", "a") as stream:
        stream.write('{"epoch": 2, "train_loss": NaN, "val_loss": 0.5}\nnot json\n')
    text = messages(inspect_path(folder))
    assert "not finite in epoch 2" in text
    assert "line 3" in text


def test_run_without_validation_is_judged_by_its_training_loss(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "run", {1: 0.5}, kept=(1,))
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "train_loss": 0.5, "val_loss": null}\n')
    assert not inspect_path(folder).wrong


def test_unfinished_run_is_noted_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "run", {1: 0.5, 2: 0.25}, kept=(1, 2))
    (folder / "run.json").write_text(json.dumps({"status": "running", "config": {"epochs": 5}}))
    (folder / "resume").mkdir()
    (folder / "resume" / "state.safetensors").touch()
    found = inspect_path(folder)
    assert not found.wrong, messages(found)
    assert "2 of 5 epochs are done" in messages(found, "note")
    assert "the same train command goes on" in messages(found, "note")
    assert found.summary["can_be_resumed"] is True


def test_unreadable_request_of_a_run_is_wrong(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "run", {1: 0.5}, kept=(1,))
    (folder / "run.json").write_text("{")
    assert "run.json" in messages(inspect_path(folder))


def test_run_without_an_epoch_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").touch()
    assert "no epoch" in messages(inspect_path(tmp_path / "run"))


def test_folder_above_runs_shows_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "saved_models").mkdir()
    a_run(tmp_path / "saved_models" / "a", {1: 0.5}, kept=(1,))
    a_run(tmp_path / "saved_models" / "b", {1: 0.5, 2: 0.4}, kept=(1,))
    for path in (tmp_path / "saved_models", tmp_path):
        found = inspect_path(path)
        assert found.kind == "runs"
        assert len(found.summary["runs"]) == 2
        assert "b/epoch_0001" in messages(found)


def test_epochs_of_a_run_without_validation_count(tmp_path: Path) -> None:
    from cryoplug.workflows.inspect.runs import _metrics

    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "train_loss": 0.2}\n{"epoch": 2, "train_loss": 0.1}\n')
    findings: list = []
    assert [record["epoch"] for record in _metrics(tmp_path, findings)] == [1, 2]
    assert findings == []
