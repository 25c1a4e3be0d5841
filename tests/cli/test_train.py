from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cryoplug.cli.main import run

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    clean = np.random.default_rng(0).random((12, 16, 16), np.float32)
    clean.tofile(tmp_path / "clean_train.bin")
    (clean + 0.1).tofile(tmp_path / "noisy_train.bin")
    return tmp_path


def train(*words: object) -> int:
    return run(["train", "--patch-size", "16", "--device", "cpu", *(str(word) for word in words)])


def test_every_flag_of_the_founding_program_is_taken_in_its_spelling(data: Path, tmp_path: Path) -> None:
    words = ["--stream", "--epochs", "2", "--lr", "0.01", "--val_split", "0.25", "--max_batches", "1", "--save"]
    assert train(*words, "--checkpoint_dir", tmp_path / "out", "--data_dir", data) == 0
    assert len(list((tmp_path / "out" / "cryo_cnn").glob("epoch_*"))) == 1


def test_json_is_one_record_an_epoch_on_stdout_and_talk_is_on_stderr(
    data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = (data, "--epochs", 3, "--val-split", 0.25, "--json", "--save", "--checkpoint-dir", tmp_path / "out")
    assert train(*words) == 0
    output = capsys.readouterr()
    *records, end = (json.loads(line) for line in output.out.splitlines())
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert end["type"] == "training" and end["checkpoint"] == records[-1]["checkpoint"]
    assert end["verdict"] is None and end["words"][0].startswith("Not judged: patches of (16, 16)")
    assert {"train_loss", "val_loss", "train_rmse", "val_rmse", "samples_per_s", "checkpoint"} <= set(records[0])
    assert "epoch 1: train loss" in output.err
    assert train(*words) == 0
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record.get("epoch") for record in again] == [1, 2, 3, None]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--val-split", 0.25), "the network was not saved (--save)"),
        (("--save", "--val-split", 0), "nothing was held out (--val-split 0)"),
        (("--save", "--val-split", 0.25, "--no-evaluation"), "--no-evaluation"),
        (("--save", "--val-split", 0.25), "patches of (16, 16) (y, x); at least 32 pixels a side are needed"),
    ],
)
def test_a_summary_without_a_verdict_begins_with_the_reason(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[object, ...], reason: str
) -> None:
    assert train(data, "--epochs", 1, *words, "--checkpoint-dir", tmp_path / "out") == 0
    output = capsys.readouterr()
    first, second = output.out.splitlines()[:2]
    assert first == f"Not judged: {reason}."
    assert second.startswith("best epoch 1: loss 0.")
    assert ("nothing will be saved" in output.err) == ("--save" not in words) == second.endswith("not saved")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--device", "cuda:99"], 7, "--device cuda:99: no GPU"),
        (["--device", "tpu"], 2, "--device 'tpu' (allowed: auto, cpu, cuda, cuda:N)"),
        (["--model", "nope"], 2, "model 'nope' is not known"),
        (["--lr", "0", "--epochs", "0"], 2, "--epochs 0 (allowed: 1 or more); --lr 0.0"),
        (["--resume"], 2, "so it needs --save"),
        (["--val-split", "0.01"], 2, "holds out none"),
        (["--init", "nowhere"], 4, "nowhere: no such folder"),
        (["--patch-size", "15"], 4, "--patch-size"),
    ],
)
def test_errors_say_what_is_wrong_and_have_their_exit_code(
    data: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    assert train(data, *words) == code
    assert message in capsys.readouterr().err


def test_data_must_be_given_once(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 2
    assert "give the folder or .h5 file that cryoplug convert wrote" in capsys.readouterr().err
    assert train(data, "--data-dir", data) == 2
    assert "give the training data once" in capsys.readouterr().err


def test_unequal_counts_are_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "clean_train.bin").write_bytes((data / "clean_train.bin").read_bytes()[: 7 * 16 * 16 * 4])
    assert train(data) == 4
    assert "12 noisy but 7 clean" in capsys.readouterr().err


def test_divergence_has_exit_code_6(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.full((12, 16, 16), np.nan, "<f4").tofile(data / "noisy_train.bin")
    assert train(data, "--val-split", 0.25) == 6
    assert "diverged in epoch 1, batch 1" in capsys.readouterr().err
