"""Laws of a whole training run; small patches, so that a run takes a fraction of a second."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from cryoplug.errors import DivergedError, FormatError, OutputBusyError, Stopped, UsageError
from cryoplug.models.checkpoint import load_checkpoint, save_checkpoint
from cryoplug.models.cryo_cnn import CryoCNN
from cryoplug.models.registry import CRYO_CNN, ModelSpec
from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.pairs import create_store, open_store
from cryoplug.training.config import TrainConfig
from cryoplug.training.data.loader import epoch_order
from cryoplug.training.pace import Pace
from cryoplug.training.progress import BatchReport, EpochReport, Event, Note
from cryoplug.training.run_folder import RunFolder
from cryoplug.workflows.train import TrainRequest, TrainResult, train, workflow

SIDE, COUNT = 24, 13
CONFIG = TrainConfig(epochs=3, lr=0.01, batch_size=4, patch_size=SIDE, val_split=0.25, device="cpu", threads=2)


def pairs(count: int = COUNT, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = np.clip(0.5 + 0.05 * np.cumsum(rng.standard_normal((count, side, side)), axis=2), 0, 1).astype("<f4")
    return (clean + 0.1 * rng.standard_normal(clean.shape)).astype("<f4"), clean


def write_bins(folder: Path, noisy: np.ndarray, clean: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    noisy.tofile(folder / "noisy_train.bin")
    clean.tofile(folder / "clean_train.bin")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_bins(tmp_path / "data", *pairs())


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than these runs; one test draws."""
    monkeypatch.setattr(workflow, "_draw_loss_curve", lambda *_: None)


def run(data: Path, out: Path | None = None, *, events: list[Event] | None = None, **changes: Any) -> TrainResult:
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    config = dataclasses.replace(CONFIG, **{key: value for key, value in changes.items() if key in fields})
    others = {key: value for key, value in changes.items() if key not in fields}
    request = TrainRequest(data, config, save=out is not None, checkpoint_dir=out or Path("unused"), **others)
    return train(request, (events if events is not None else []).append)


def digest(folder: Path) -> str:
    return load_checkpoint(folder).sha256


def final_state(folder: Path) -> bytes:
    return (folder / "cryo_cnn" / "resume" / "state.safetensors").read_bytes()[-31000:]


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


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_that_ends_at_any_rename_goes_on_to_the_same_bits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    run(data, tmp_path / "straight", checkpoint_minutes=0)
    expected = digest(tmp_path / "straight"), final_state(tmp_path / "straight")
    real, countdown = os.replace, [0]

    def replace(source: Path, target: Path) -> None:
        countdown[0] -= 1
        if countdown[0] == 0 and moment == "before":
            raise Killed
        real(source, target)
        if countdown[0] == 0:
            raise Killed

    monkeypatch.setattr(os, "replace", replace)
    for number in range(1, 200, 3):
        out = tmp_path / str(number)
        countdown[0] = number
        try:
            run(data, out, checkpoint_minutes=0)
        except Killed:
            countdown[0] = 0
            run(data, out, checkpoint_minutes=0)
            assert (digest(out), final_state(out)) == expected
            assert len(list((out / "cryo_cnn").glob("epoch_*"))) == 1
            assert not list(out.rglob("*.cryoplug-partial"))
        else:
            assert number > 20
            return
    raise AssertionError("the run never came to its end")


def test_kill_9_at_any_moment_then_resume_gives_the_same_bits(tmp_path: Path) -> None:
    data = write_bins(tmp_path / "data", *pairs(60, 64))
    options = {"patch_size": 64, "batch_size": 1, "checkpoint_minutes": 0.0, "augment": "dihedral"}
    command = [
        *(sys.executable, "-m", "cryoplug", "train", data, "--epochs", 3, "--lr", 0.01, "--val-split", 0.25),
        *("--patch-size", 64, "--batch-size", 1, "--augment", "dihedral", "--checkpoint-minutes", 0),
        *("--device", "cpu", "--threads", 2, "--save", "--checkpoint-dir", tmp_path / "killed", "--resume"),
    ]
    state = tmp_path / "killed" / "cryo_cnn" / "resume" / "state.safetensors"
    for saves in (20, 45):
        child = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        seen, inode, deadline = 0, 0, time.monotonic() + 120
        while seen < saves and child.poll() is None and time.monotonic() < deadline:
            now = state.stat().st_ino if state.exists() else 0
            seen, inode = seen + (now != inode), now
        child.kill()
        child.communicate()
        assert child.returncode == -signal.SIGKILL, "the run ended before it was killed"
    run(data, tmp_path / "killed", resume=True, **options)
    run(data, tmp_path / "straight", **options)
    assert digest(tmp_path / "killed") == digest(tmp_path / "straight")
    assert final_state(tmp_path / "killed") == final_state(tmp_path / "straight")


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


def test_a_finished_run_says_so_and_changes_nothing(data: Path, tmp_path: Path) -> None:
    first = run(data, tmp_path / "out")
    before = digest(tmp_path / "out"), final_state(tmp_path / "out")
    events: list[Event] = []
    again = run(data, tmp_path / "out", events=events)
    assert again.already_finished and not first.already_finished
    assert again.epochs == first.epochs and again.checkpoint == first.checkpoint
    assert (digest(tmp_path / "out"), final_state(tmp_path / "out")) == before
    assert any(isinstance(event, Note) and "all 3 epochs are done already" in event.text for event in events)


def test_resume_with_more_epochs_equals_a_longer_run(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "out", epochs=2)
    with pytest.raises(UsageError, match=r"epochs was 2, is 4\); --resume to go on for more epochs"):
        run(data, tmp_path / "out", epochs=4)
    run(data, tmp_path / "out", epochs=4, resume=True)
    run(data, tmp_path / "straight", epochs=4)
    assert final_state(tmp_path / "out") == final_state(tmp_path / "straight")
    with pytest.raises(UsageError, match="epochs was 4, is 3"):
        run(data, tmp_path / "out", epochs=3, resume=True)


def test_another_configuration_is_refused_by_name_unless_overwritten(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "out")
    with pytest.raises(UsageError, match=r"another configuration \(lr was 0\.01, is 0\.02; seed was 0, is 1\)"):
        run(data, tmp_path / "out", lr=0.02, seed=1)
    noisy, clean = pairs()
    with pytest.raises(UsageError, match="data was"):
        run(write_bins(tmp_path / "other", noisy + 1, clean), tmp_path / "out")
    run(data, tmp_path / "out", lr=0.02, seed=1, overwrite=True)
    run(data, tmp_path / "straight", lr=0.02, seed=1)
    assert digest(tmp_path / "out") == digest(tmp_path / "straight")
    assert len(list((tmp_path / "out" / "cryo_cnn").glob("epoch_*"))) == 1


def test_weights_of_unknown_origin_are_not_replaced(data: Path, tmp_path: Path) -> None:
    result = run(data, tmp_path / "out")
    assert result.checkpoint is not None
    shutil.copytree(result.checkpoint, tmp_path / "founding" / "cryo_cnn" / "epoch_0001")
    with pytest.raises(UsageError, match=r"holds epoch_0001 but no run\.json"):
        run(data, tmp_path / "founding")


def test_a_finished_run_without_its_state_is_not_started_again_silently(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "cryo_cnn" / "resume")
    with pytest.raises(UsageError, match="missing, so this finished run cannot be checked"):
        run(data, tmp_path / "out")


def test_a_damaged_state_is_refused(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "out")
    path = tmp_path / "out" / "cryo_cnn" / "resume" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(FormatError, match="damaged"):
        run(data, tmp_path / "out", resume=True, epochs=4)


def test_another_version_of_torch_is_told_as_not_bit_identical(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data, tmp_path / "out", epochs=1)
    monkeypatch.setattr(torch, "__version__", "99.0")
    events: list[Event] = []
    run(data, tmp_path / "out", epochs=2, resume=True, events=events)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("not bit-identical to an uninterrupted run: torch was" in note for note in notes)


def test_a_live_run_is_not_disturbed(data: Path, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "out" / "cryo_cnn"), pytest.raises(OutputBusyError):
        run(data, tmp_path / "out")


def epoch_that_first_meets(patch: int, *, batches: int) -> int:
    train_patches = np.arange(10)
    for epoch in range(1, 50):
        order = epoch_order(train_patches, seed=0, epoch=epoch, shuffle=True)
        if patch in order[: batches * CONFIG.batch_size]:
            return epoch
    raise AssertionError


@pytest.mark.parametrize(("side", "value"), [("noisy", np.nan), ("clean", np.inf)])
def test_a_bad_pixel_stops_the_run_names_its_patch_and_keeps_the_best(tmp_path: Path, side: str, value: float) -> None:
    patch = next(index for index in range(10) if epoch_that_first_meets(index, batches=1) == 3)
    noisy, clean = pairs()
    (noisy if side == "noisy" else clean)[patch, 5, 7] = value
    data = write_bins(tmp_path / "data", noisy, clean)
    with pytest.raises(DivergedError) as raised:
        run(data, tmp_path / "out", max_batches=1, epochs=9)
    kept = load_checkpoint(tmp_path / "out")
    message = str(raised.value)
    assert "training diverged in epoch 3, batch 1: the loss is" in message
    assert f"patch {patch} of train: 1 {side} pixels of {SIDE * SIDE} are not finite, first at y 5, x 7" in message
    assert f"the best checkpoint is kept: {kept.path}" in message
    assert raised.value.exit_code == 6
    assert all(np.isfinite(array).all() for array in kept.weights.values())


def test_a_bad_pixel_among_the_validation_patches_is_named_too(tmp_path: Path) -> None:
    noisy, clean = pairs()
    noisy[11, 0, 0] = np.nan
    with pytest.raises(
        DivergedError, match=r"validation diverged in epoch 1, batch 1.*patch 11 of train.*no checkpoint"
    ):
        run(write_bins(tmp_path / "data", noisy, clean), tmp_path / "out")


def test_a_learning_rate_that_is_too_high_is_told_apart_from_bad_pixels(tmp_path: Path) -> None:
    noisy, clean = pairs()
    data = write_bins(tmp_path / "data", noisy * np.float32(1e12), clean)
    with pytest.raises(DivergedError, match=r"all pixels of its 4 patches are finite .*; try --lr below 1e\+20"):
        run(data, lr=1e20)


def test_every_hundredth_batch_is_reported(data: Path) -> None:
    events: list[Event] = []
    run(data, events=events, epochs=1, val_split=0.0, batch_size=1, patch_size=2)
    reports = [event for event in events if isinstance(event, BatchReport)]
    assert [report.batch for report in reports] == list(range(100, 13 * 144 + 1, 100))
    assert all(report.batches == 13 * 144 and report.samples_per_s > 0 for report in reports)
    assert reports[0].text.startswith("epoch 1 batch 100/1872: loss 0.")


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
    with pytest.raises(UsageError, match="model_options was"):
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


def test_sides_of_a_store_that_are_not_halves_are_never_exchanged(tmp_path: Path) -> None:
    store = tmp_path / "store"
    head = Manifest((SIDE, SIDE), "float32", "noise", "percentile", 0, SIDE)
    with create_store(store, head) as writer:
        noisy, clean = pairs(2)
        for index in range(2):
            writer.append("train", noisy[index], clean[index], (0, 0))
            writer.acknowledge(MicrographEntry(f"m{index}", "train", (SIDE, SIDE), 1.0, {"kind": "percentile"}))
        writer.finish()
    with pytest.raises(
        UsageError, match=r"a store of --pairs noise, whose sides must not be exchanged; give --augment"
    ):
        run(store, augment="halves")


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


def test_a_network_of_two_outputs_is_refused_because_a_store_has_one_target(data: Path) -> None:
    config = dataclasses.replace(CONFIG, model="unet", model_options={"depth": 1, "width": 2, "outputs": 2})
    with pytest.raises(
        UsageError, match="outputs=2: the network gives image and particles, but a store has one target"
    ):
        train(TrainRequest(data, config), lambda event: None)
