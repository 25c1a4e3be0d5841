"""The command that a summary ends with is run as it stands: from simulated micrographs to denoised ones."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest

from cryoplug.cli import next_step
from cryoplug.cli.main import run
from cryoplug.formats.mrc import write_mrc

QUICK = ["--device", "cpu", "--threads", "1"]
TRAIN = ["train", *QUICK, "--epochs", "1", "--max-batches", "1", "--save"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(next_step, "_FROM_GENERAL", ())  # those from the general model take minutes
    for variable in ("DENOISE", "TRAIN", "EVALUATE"):
        monkeypatch.setenv(f"CRYOPLUG_{variable}_DEVICE", "cpu")
    monkeypatch.setenv("CRYOPLUG_TRAIN_MAX_BATCHES", "1")
    monkeypatch.setenv("CRYOPLUG_TRAIN_EPOCHS", "1")
    monkeypatch.setenv("CRYOPLUG_TRAIN_NO_EVALUATION", "1")  # one batch teaches nothing, and then nothing is said
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], words: list[str], code: int = 0) -> str:
    capsys.readouterr()
    assert run(words) == code
    return capsys.readouterr().err


def next_words(talk: str) -> list[str]:
    words = shlex.split(talk.splitlines()[-1].partition(" next: ")[2])
    assert words[0] == "cryoplug"
    return words[1:]


def test_from_simulated_to_denoised_by_nothing_but_what_each_command_says(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["simulate", "-o", "my mics; all", "--count", "2", "--size", "128", "--pixel-size", "5"]
    called = []
    while words[0] != "denoise":
        called.append(words[0])
        words = next_words(said(capsys, words))
    assert called == ["simulate", "convert", "train"]
    assert "my mics; all/micrographs.star" in words
    said(capsys, words)
    assert len(list((here / "denoised").rglob("*.mrc"))) == 2


def test_what_train_says_keeps_the_pixel_size_that_was_stated_and_takes_an_unused_folder(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "denoised").mkdir()
    said(capsys, ["simulate", "-o", "sim", "--count", "2", "--size", "64", "--pixel-size", "5"])
    convert = ["convert", "--pairs", "clean", "sim/noisy", "--clean", "sim/clean", "--pixel-size", "3", "-o", "store"]
    words = next_words(said(capsys, [*convert, "--patch-size", "32", "--test-split", "0"]))
    assert words == ["train", "store", "--save"]
    words = next_words(said(capsys, words))
    assert words[:2] == ["denoise", "sim/noisy"] and words[-4:] == ["--pixel-size", "3", "-o", "denoised_2"]
    said(capsys, words)


def test_where_the_micrographs_are_not_known_words_say_what_to_do(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("noisy_train.bin", "clean_train.bin"):
        np.random.default_rng(0).random((8, 32, 32)).astype("<f4").tofile(here / name)
    talk = said(capsys, [*TRAIN, ".", "--patch-size", "32", "--val-split", "0.25"])
    assert talk.splitlines()[-1].endswith(
        "train: next: cryoplug denoise, with your micrographs and --checkpoint saved_models/cryo_cnn/epoch_0001"
    )


def test_a_store_that_no_training_takes_has_no_next_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mrc(here / "a.mrc", np.random.default_rng(0).random((64, 64), np.float32), pixel_size_angstrom=3)
    talk = said(capsys, ["convert", "a.mrc", "-o", "store", "--patch-size", "64"])
    assert " next: " not in talk
    said(capsys, ["train", "store", "--save"], 2)


def test_training_begins_with_the_general_model_where_its_pixel_sizes_are_those_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    begun = {}
    for size in (1.5, 3.0):
        folder = f"at{size}"
        said(capsys, ["simulate", "-o", folder, "--count", "2", "--size", "128", "--pixel-size", str(size)])
        star = f"{folder}/micrographs.star"
        convert = ["convert", "--pairs", "halves", star, "--accept-unproven", "-o", f"{folder}/store"]
        begun[size] = next_words(said(capsys, convert))
    assert begun[3.0][2:] == ["--init", "general", "--minutes", "5", "--save"]
    assert begun[1.5][2:] == ["--save"]


def test_evaluate_ends_with_how_to_denoise_as_it_was_judged_when_that_is_better(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, ["simulate", "-o", "sim", "--count", "2", "--size", "192", "--pixel-size", "5"])
    judged = ["evaluate", "sim/noisy", "--clean", "sim/clean", "--tta", "off", "-o"]
    words = next_words(said(capsys, [*judged, "ev"]))
    assert words == [
        "denoise",
        "sim/noisy",
        "--checkpoint",
        "general",
        "--device",
        "cpu",
        "--tta",
        "off",
        "-o",
        "denoised",
    ]
    said(capsys, words)
    assert " next: " not in said(capsys, [*judged, "ev2", "--denoised", "denoised"])


def test_a_store_too_small_to_hold_anything_out_is_trained_on_without(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, ["simulate", "-o", "sim", "--count", "1", "--size", "300", "--pixel-size", "5"])
    words = next_words(
        said(
            capsys,
            ["convert", "--pairs", "halves", "sim/noisy", "--store", "whole", "--patch-size", "64", "-o", "store"],
        )
    )
    assert words == ["train", "store", "--val-split", "0", "--save"]
    said(capsys, words)
