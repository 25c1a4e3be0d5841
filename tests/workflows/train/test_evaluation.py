"""Laws of the evaluation that ends a training run."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryoplug.cli.main import run as command_line
from cryoplug.errors import Stopped
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.simulation.micrograph import SimulationSettings
from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.pairs import create_store
from cryoplug.training.config import TrainConfig
from cryoplug.training.progress import Event, Note
from cryoplug.workflows.convert import ConvertRequest, convert
from cryoplug.workflows.evaluate import EvaluateRequest, evaluate
from cryoplug.workflows.simulate import SimulateRequest, simulate
from cryoplug.workflows.train import TrainRequest, TrainResult, train
from cryoplug.workflows.train import evaluation as train_evaluation

pytestmark = pytest.mark.usefixtures("no_pictures")

SIDE = 96
CONFIG = TrainConfig(epochs=2, lr=0.003, batch_size=2, val_split=0.5, device="cpu", threads=1)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    settings = SimulationSettings(size_px=SIDE, pixel_size_angstrom=6)
    simulate(SimulateRequest(folder, count=6, settings=settings))
    return folder


@pytest.fixture(scope="module")
def halves(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One patch a micrograph, so that the evaluation of patches is one of micrographs."""
    store = tmp_path_factory.mktemp("store") / "halves"
    sides = {side: (str(simulated / side),) for side in ("even", "odd")}
    convert(ConvertRequest((), store, pairs="halves", patch_size=SIDE, test_split=0, accept_unproven=True, **sides))
    return store


def run(data: Path, out: Path, *, events: list[Event] | None = None, **changes: Any) -> TrainResult:
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    config = dataclasses.replace(CONFIG, **{key: value for key, value in changes.items() if key in fields})
    others = {key: value for key, value in changes.items() if key not in fields}
    request = TrainRequest(data, config, save=True, checkpoint_dir=out, **others)
    return train(request, (events if events is not None else []).append)


def record_of(out: Path) -> dict[str, Any]:
    return load_checkpoint(out).details["evaluation"]


def state(out: Path) -> bytes:
    return (out / "cryo_cnn" / "resume" / "state.safetensors").read_bytes()[-31000:]


def test_the_figures_are_those_of_evaluate_on_the_held_out_micrographs(
    simulated: Path, halves: Path, tmp_path: Path
) -> None:
    result = run(halves, tmp_path / "out", augment="halves")
    found = record_of(tmp_path / "out")
    assert (found["patches"], found["micrographs"], found["truth"]) == (3, 3, None)
    path = next((tmp_path / "out").rglob("checkpoint.json"))
    # What denoise does with micrographs whose noise is another than that of the training data is not the matter here.
    path.write_text(json.dumps({**json.loads(path.read_text()), "seen": None}))
    held = [int(line) + 1 for line in (tmp_path / "out/cryo_cnn/validation_indices.txt").read_text().split()]
    sides = {side: tuple(str(simulated / side / f"mic_{n:04d}.mrc") for n in held) for side in ("even", "odd")}
    request = EvaluateRequest(
        output=tmp_path / "evaluation",
        checkpoint=tmp_path / "out",
        device="cpu",
        threads=1,
        accept_unproven=True,
        **sides,  # type: ignore[arg-type]
    )
    expected = evaluate(request).summary
    assert expected is not None and expected.halves is not None and result.evaluation is not None
    assert found["directions"] == list(expected.directions) == ["even", "odd"]
    assert list(found["halves"]) == ["denoised", "identity", "affine", "gaussian", "wiener"]
    for method, figures in expected.halves.items():
        for name in ("snr_fitted_db", "psnr_db", "correlation", "correlation_multiple", "signal_removed"):
            mine = found["halves"][method][name]
            assert mine["mean"] == pytest.approx(figures[name].mean, rel=2e-4, abs=1e-4), (method, name)
            assert mine["standard_error"] == pytest.approx(figures[name].standard_error, rel=0.01, abs=1e-4)
    curves = found["curves"]
    assert len(curves["frequency"]) == len(curves["denoised"]) == len(curves["wiener"]) <= 64
    assert curves["frequency"][-1] <= 0.5


def test_halves_that_were_normalized_apart_are_judged_on_one_scale(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    head = Manifest((64, 64), "float32", "halves", "zscore", 0, 64)
    with create_store(tmp_path / "store", head) as writer:
        for number in range(4):
            signal_part = np.cumsum(rng.standard_normal((64, 64)), axis=1) / 8
            even, odd = (100 + signal_part + sigma * rng.standard_normal((64, 64)) for sigma in (0.2, 2.0))
            sides = [(side - side.mean()) / side.std() for side in (even, odd)]
            writer.append("train", *(side.astype("<f4") for side in sides), (0, 0))
            numbers = [{"kind": "zscore", "offset": side.mean(), "scale": side.std()} for side in (even, odd)]
            writer.acknowledge(
                MicrographEntry(f"m{number}", "train", (64, 64), 1.0, numbers[0], clean_normalization=numbers[1])
            )
        writer.finish()
    run(tmp_path / "store", tmp_path / "out")
    found = record_of(tmp_path / "out")
    # The even half is nearly the signal: as it is, it has hardly any error, which two scales would hide.
    identity = found["halves"]["identity"]
    assert identity["snr_db"]["mean"] > 8 and abs(found["halves"]["affine"]["signal_removed"]["mean"]) < 0.2
    assert found["noise_ratio"]["mean"] < 0.05 and found["directions"] == ["even"]
    assert identity["bias"]["mean"] is None and identity["error"]["mean"] is not None


def test_pairs_with_a_truth_are_judged_by_it(simulated: Path, tmp_path: Path) -> None:
    convert(ConvertRequest((str(simulated / "clean"),), tmp_path / "store", patch_size=SIDE, test_split=0))
    run(tmp_path / "store", tmp_path / "out")
    found = record_of(tmp_path / "out")
    assert found["halves"] is None and found["truth"]["wiener"]["snr_db"]["mean"] > 0
    assert found["truth"]["wiener"]["snr_db"]["mean"] >= found["truth"]["gaussian"]["snr_db"]["mean"]
    assert set(found["hallucination"]) == {"denoised", "gaussian"}


def test_it_changes_no_weight_and_a_second_run_changes_nothing(halves: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    assert run(halves, tmp_path / "without", evaluate=False, events=events).evaluation is None
    assert "evaluation" not in load_checkpoint(tmp_path / "without").details
    run(halves, tmp_path / "with")
    assert load_checkpoint(tmp_path / "with").sha256 == load_checkpoint(tmp_path / "without").sha256
    assert state(tmp_path / "with") == state(tmp_path / "without")
    path = next((tmp_path / "with").rglob("checkpoint.json"))
    before = path.stat().st_mtime_ns
    again = run(halves, tmp_path / "with")
    assert again.already_finished and again.evaluation is None and path.stat().st_mtime_ns == before
    # A run that was finished without it gets it from the next call.
    assert run(halves, tmp_path / "without").evaluation is not None
    assert record_of(tmp_path / "without") == record_of(tmp_path / "with")


def test_a_signal_during_it_leaves_a_finished_run_and_the_same_command_makes_up_for_it(
    halves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = train_evaluation.judge

    def judge(*args: Any, **named: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(train_evaluation, "judge", judge)
        with pytest.raises(Stopped, match="the training is finished and safe; the same command") as raised:
            run(halves, tmp_path / "out")
    assert raised.value.exit_code == 143
    assert json.loads((tmp_path / "out/cryo_cnn/run.json").read_text())["status"] == "finished"
    assert "evaluation" not in load_checkpoint(tmp_path / "out").details
    before = load_checkpoint(tmp_path / "out").sha256, state(tmp_path / "out")
    again = run(halves, tmp_path / "out")
    assert again.already_finished and again.evaluation is not None and record_of(tmp_path / "out")["patches"] == 3
    assert (load_checkpoint(tmp_path / "out").sha256, state(tmp_path / "out")) == before


class Killed(BaseException):
    pass


@pytest.mark.parametrize("last", [1, 2, 3, 5])
def test_a_kill_near_the_end_leaves_the_same_bits_and_the_same_figures(
    halves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    real, count = os.replace, [0]

    def counting(source: Path, target: Path) -> None:
        count[0] += 1
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counting)
        run(halves, tmp_path / "straight")
    left = [count[0] - last]

    def dying(source: Path, target: Path) -> None:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(Killed):
            run(halves, tmp_path / "out")
    run(halves, tmp_path / "out")
    assert load_checkpoint(tmp_path / "out").sha256 == load_checkpoint(tmp_path / "straight").sha256
    assert state(tmp_path / "out") == state(tmp_path / "straight")
    assert record_of(tmp_path / "out") == record_of(tmp_path / "straight")
    assert not list((tmp_path / "out").rglob("*.cryoplug-partial"))


def test_more_epochs_get_an_evaluation_of_their_own(halves: Path, tmp_path: Path) -> None:
    run(halves, tmp_path / "out", epochs=1)
    first = record_of(tmp_path / "out")
    run(halves, tmp_path / "out", epochs=3, resume=True)
    run(halves, tmp_path / "straight", epochs=3)
    assert load_checkpoint(tmp_path / "out").details["epoch"] > 1
    assert record_of(tmp_path / "out") == record_of(tmp_path / "straight") != first


def test_what_cannot_be_measured_is_told(halves: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    run(halves, tmp_path / "out", val_split=0.0, events=events)
    assert Note("no evaluation: nothing was held out (--val-split 0)") in events
    small = np.random.default_rng(0).random((8, 16, 16)).astype("<f4")
    (tmp_path / "small").mkdir()
    for name in ("noisy_train.bin", "clean_train.bin"):
        small.tofile(tmp_path / "small" / name)
    run(tmp_path / "small", tmp_path / "two", patch_size=16, events=events)
    assert any("no evaluation: patches of (16, 16)" in event.text for event in events)


def test_inspect_shows_the_table_and_bears_any_record(
    halves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(halves, tmp_path / "out")
    capsys.readouterr()
    assert command_line(["inspect", str(tmp_path / "out" / "cryo_cnn")]) == 0
    shown = capsys.readouterr().out
    assert "3 patches of 3 micrographs, judged by halves" in shown and "wiener" in shown
    path = next((tmp_path / "out").rglob("checkpoint.json"))
    record = json.loads(path.read_text())
    for wrong in ({}, {"micrographs": "x"}, {**record["evaluation"], "halves": {"denoised": 3}}):
        path.write_text(json.dumps({**record, "evaluation": wrong}))
        assert command_line(["inspect", str(tmp_path / "out" / "cryo_cnn")]) == 0
        out = capsys.readouterr().out
        assert not wrong or "not one that this version can read" in out


def test_training_prints_a_short_table_and_json_has_the_figures(
    halves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["train", str(halves), "--save", "--epochs", "1", "--val-split", "0.5", "--device", "cpu"]
    assert command_line([*common, "--checkpoint-dir", str(tmp_path / "a")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 200 and sum("gaussian" in line for line in lines) == 2
    assert command_line([*common, "--checkpoint-dir", str(tmp_path / "b"), "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(records) == 2 and records[1]["evaluation"]["patches"] == 3
    assert command_line([*common, "--checkpoint-dir", str(tmp_path / "c"), "--no-evaluation"]) == 0
    assert "judged by" not in capsys.readouterr().out


def test_the_run_leaves_a_page_which_is_made_again_when_it_is_missing(halves: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    run(halves, tmp_path / "out", augment="halves", events=events)
    page = tmp_path / "out" / "cryo_cnn" / "report.html"
    assert any(str(page) in event.text for event in events)
    text = page.read_text()
    assert text.count("data:image/jpeg") == 3 * 4  # three held-out patches: input, denoised, other half, removed
    assert "Effective frequency response" in text
    page.unlink()
    run(halves, tmp_path / "out", augment="halves")
    assert "Effective frequency response" in page.read_text()


def test_inspect_writes_a_page_of_the_run_and_of_its_store(halves: Path, tmp_path: Path) -> None:
    run(halves, tmp_path / "out", augment="halves", epochs=2)
    page = tmp_path / "page.html"
    command_line(["inspect", str(halves), str(tmp_path / "out" / "cryo_cnn"), "--report", str(page)])
    text = page.read_text()
    for part in ("contact sheet", "How training went", "Beside simple filters", "Effective frequency response"):
        assert part in text
    assert command_line(["inspect", str(halves), "--report", str(tmp_path / "page.txt")]) == 2
