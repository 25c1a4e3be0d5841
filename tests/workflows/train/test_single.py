"""Training on single exposures, and the verdict that ends a training: recipe, first line, exit code, record, inspect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryoplug.cli.main import run as command_line
from cryoplug.errors import FormatError, UsageError
from cryoplug.formats.mrc import write_mrc
from cryoplug.models.checkpoint import add_details, load_checkpoint
from cryoplug.simulation.micrograph import SimulationSettings, simulate_micrograph
from cryoplug.store.pairs import open_store
from cryoplug.training.config import TrainConfig
from cryoplug.training.presets import with_recipe
from cryoplug.workflows.convert import ConvertRequest, convert
from cryoplug.workflows.train import TrainRequest
from cryoplug.workflows.train.single import recorruption_of

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def micrographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("micrographs")
    settings = SimulationSettings(size_px=256, pixel_size_angstrom=3.0, dose_e_per_angstrom2=10, seed=2)
    for index in range(4):
        noisy = simulate_micrograph(settings, index).noisy
        write_mrc(folder / f"m{index}.mrc", noisy, pixel_size_angstrom=3.0)
    return folder


@pytest.fixture(scope="module")
def store(micrographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("store") / "single"
    convert(ConvertRequest((str(micrographs),), out, pairs="single", store="whole", patch_size=64, test_split=0))
    return out


def words(store: Path, out: Path, *more: str) -> list[str]:
    options = ["--save", "--checkpoint-dir", str(out), "--device", "cpu", "--threads", "1", "--val-split", "0.5"]
    short = ["--crop-size", "64", "--crops-per-epoch", "8", "--batch-size", "2", "--epochs", "1"]
    return ["train", str(store), *options, *short, *more]


def test_single_exposures_get_a_recipe_of_their_own() -> None:
    def chosen(config: TrainConfig, recipe: str = "auto", pairs: str = "single", **given: Any) -> TrainConfig:
        fixed: dict[str, Any] = {"patch_shape": (256, 256), "whole": (900, 900), "on_gpu": False, "given": given}
        return with_recipe(config, recipe, pairs=pairs, **fixed)

    config, halves = chosen(TrainConfig(model="unet")), chosen(TrainConfig(model="unet"), pairs="halves")
    assert (config.augment, halves.augment) == ("dihedral", "halves")
    assert {**config.identity(), "augment": ""} == {**halves.identity(), "augment": ""}
    assert chosen(TrainConfig(mix=0.3), mix=True).mix == 0.3
    for wrong in ({"recipe": "halves"}, {"recipe": "single", "pairs": "halves"}):
        with pytest.raises(UsageError, match="recipe"):
            chosen(TrainConfig(), **wrong)
    with pytest.raises(UsageError, match="no other half"):
        chosen(TrainConfig(augment="halves"), augment=True)


def test_training_on_single_exposures_ends_with_a_verdict_that_inspect_repeats(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line(words(store, tmp_path)) == 0
    captured = capsys.readouterr()
    assert "training adds noise like theirs, measured from counted electrons in 4" in captured.err
    first, judged = captured.out.splitlines()[:2]
    assert "than" in first
    assert "noise drawn with the measured spectrum" in judged
    details = load_checkpoint(tmp_path / "cryo_cnn").details
    assert details["pairs"] == "single"
    assert details["evaluation"]["verdict"]["judge"] == "halves"
    assert "judged by noise drawn with its spectrum" in captured.out
    command_line(["inspect", str(tmp_path / "cryo_cnn"), "--report", str(tmp_path / "page.html")])
    shown = capsys.readouterr().out
    assert first in shown and "judged by noise drawn with its spectrum" in shown
    for page in (tmp_path / "page.html", tmp_path / "cryo_cnn" / "report.html"):
        text = page.read_text()
        assert first.replace("+-", "±") in text or first in text, page
        assert "Judged without truth, by noise drawn with the measured spectrum." in text
    assert "half of each exposure" not in captured.out + shown, "single exposures have no halves"


def test_a_run_that_goes_on_ends_with_the_same_weights(store: Path, tmp_path: Path) -> None:
    straight = ["--epochs", "2", "--no-evaluation"]
    assert command_line([*words(store, tmp_path / "a"), *straight]) == 0
    assert command_line([*words(store, tmp_path / "b"), "--no-evaluation"]) == 0
    assert command_line([*words(store, tmp_path / "b"), *straight, "--resume"]) == 0
    states = [(tmp_path / name / "cryo_cnn" / "metrics.jsonl").read_text().splitlines()[-1] for name in "ab"]
    losses = [(json.loads(line)["train_loss"], json.loads(line)["val_loss"]) for line in states]
    # The schedule of two epochs began as one of one: only the validation of the first epoch is compared to the bit.
    assert np.isfinite(losses).all()
    first = [json.loads((tmp_path / n / "cryo_cnn" / "metrics.jsonl").read_text().splitlines()[0]) for n in "aa"]
    assert first[0]["val_loss"] == first[1]["val_loss"]


@pytest.mark.parametrize("than", ["identity", "gaussian"])
def test_a_network_that_is_no_better_ends_with_one_and_says_so_first(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], than: str
) -> None:
    """A learning rate that changes nothing leaves random weights, which are worse than doing nothing."""
    command = words(store, tmp_path, "--lr", "1e-12", "--require-better-than", than)
    assert command_line(command) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("WORSE than")
    assert any("NOT met" in line for line in out)
    # The same command again does nothing more, and still says no.
    assert command_line(command) == 1
    assert capsys.readouterr().out.startswith("WORSE than")
    command_line(["inspect", str(tmp_path / "cryo_cnn")])
    assert "WORSE than" in capsys.readouterr().out
    assert command_line([*command, "--json"]) == 1
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["words"][0].startswith("WORSE than")
    assert record["verdict"]["comparisons"][than]["answer"] != "better"


@pytest.mark.parametrize(("answer", "code"), [("worse", 1), ("better", 0), ("alike", 0)])
def test_inspect_finds_a_network_that_is_worse_than_doing_nothing_and_denoise_tells(
    micrographs: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: str, code: int
) -> None:
    assert command_line(words(store, tmp_path)) == 0
    epoch = tmp_path / "cryo_cnn" / "epoch_0001"
    evaluation = load_checkpoint(epoch).details["evaluation"]
    for item in evaluation["verdict"]["comparisons"].values():
        item["answer"] = answer
    add_details(epoch, evaluation=evaluation)
    capsys.readouterr()
    assert command_line(["inspect", str(tmp_path / "cryo_cnn")]) == code
    assert ("Worse than doing nothing" in capsys.readouterr().out) is (answer == "worse")
    # Whoever denoises with it all the same hears of it before the first micrograph.
    for more in (["--dry-run"], []):
        denoise = [
            "denoise",
            str(micrographs),
            "--checkpoint",
            str(tmp_path / "cryo_cnn"),
            "-o",
            str(tmp_path / "out"),
        ]
        assert command_line([*denoise, "--device", "cpu", "--no-previews", *more]) == 0
        told = "after its training this network was judged: WORSE than the raw micrograph" in capsys.readouterr().err
        assert told is (answer == "worse")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"save": False}, "--save"),
        ({"evaluate": False}, "--no-evaluation"),
        ({"config": TrainConfig(val_split=0)}, "--val-split"),
        ({"require_better_than": "everything"}, "allowed: identity"),
    ],
)
def test_what_cannot_be_measured_cannot_be_required(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    fields = {"config": TrainConfig(), "save": True, "require_better_than": "gaussian", **more}
    with pytest.raises(UsageError, match=message):
        TrainRequest(tmp_path, **fields)


def test_the_founding_recipe_says_what_it_is(
    micrographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(ConvertRequest((str(micrographs),), tmp_path / "noise", patch_size=64, stride=64, test_split=0))
    command = [
        "train",
        str(tmp_path / "noise"),
        "--max-batches",
        "1",
        "--epochs",
        "1",
        "--device",
        "cpu",
        "--batch-size",
        "2",
    ]
    assert command_line(command) == 0
    assert "artificial noise" in capsys.readouterr().out


def test_a_manifest_without_noise_is_refused_by_the_micrographs_name(store: Path, tmp_path: Path) -> None:
    import torch

    record = json.loads((store / "dataset.json").read_text())
    record["micrographs"][2]["noise"]["power"] = [1.0]
    (tmp_path / "dataset.json").write_text(json.dumps(record))
    (tmp_path / "noisy_train.bin").write_bytes((store / "noisy_train.bin").read_bytes())
    with open_store(tmp_path) as damaged, pytest.raises(FormatError, match=r"m2\.mrc.*power"):
        recorruption_of(damaged, TrainConfig(), torch.device("cpu"))
