from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cryoplug.errors import FormatError, OutputBusyError
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint
from cryoplug.models.registry import CRYO_CNN
from cryoplug.training.run_folder import RunFolder


def weights(value: float) -> Checkpoint:
    arrays = {name: np.full(shape, value, "f4") for name, shape in CRYO_CNN.weight_shapes().items()}
    return Checkpoint("cryo_cnn", arrays, details={"epoch": 1})


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run"), pytest.raises(OutputBusyError, match="in use by process"):
        RunFolder(tmp_path / "run")
    with RunFolder(tmp_path / "run") as run:
        assert run.epochs() == []


def test_the_old_best_stays_until_it_is_told_to_go(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        run.save_best(1, weights(1), 0.5)
        run.save_best(3, weights(3), 0.3)
        assert [folder.name for folder in run.epochs()] == ["epoch_0001", "epoch_0003"]
        run.keep_only(9)
        assert len(run.epochs()) == 2, "the epoch to keep is not there: nothing may go"
        (run.path / ".epoch_0009.77.cryoplug-partial").mkdir()
        run.keep_only(3)
        assert sorted(item.name for item in run.path.iterdir()) == [".cryoplug-lock", "epoch_0003"]


def test_saving_the_same_epoch_again_keeps_or_replaces_it_whole(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        folder = run.save_best(1, weights(1), 0.5)
        before = (folder / "model.safetensors").stat().st_ino
        run.save_best(1, weights(1), 0.5)
        assert (folder / "model.safetensors").stat().st_ino == before
        run.save_best(1, weights(2), 0.4)
        assert load_checkpoint(folder).sha256 == weights(2).sha256
        (folder / "conv1_bias.bin").write_bytes(b"x")
        run.save_best(1, weights(2), 0.4)
        assert load_checkpoint(folder).sha256 == weights(2).sha256
        assert [item.name for item in run.path.iterdir() if item.name != ".cryoplug-lock"] == ["epoch_0001"]


def test_forgetting_a_run_leaves_its_checkpoint(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        run.save_best(1, weights(1), 0.5)
        run.write_request({"config": {}})
        run.write_state(b"state")
        run.write_metrics([{"epoch": 1}])
        assert (run.read_state(), run.read_request()) == (b"state", {"config": {}})
        run.forget()
        assert (run.read_state(), run.read_request()) == (None, None)
        assert len(run.epochs()) == 1


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"config": 3}'])
def test_a_damaged_run_record_is_an_error_that_says_what_to_do(tmp_path: Path, text: str) -> None:
    with RunFolder(tmp_path / "run") as run:
        (run.path / "run.json").write_text(text)
        with pytest.raises(FormatError, match="give --overwrite to start again"):
            run.read_request()


def test_metrics_are_one_json_object_a_line(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        run.write_metrics([{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.25}])
        lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
