"""Laws of training on a GPU: skipped where there is none; benchmarks/gpu_training.py is their partner for speed."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cryoplug.errors import DivergedError, Stopped
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.models.registry import CRYO_CNN, model_spec
from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.pairs import create_store
from cryoplug.training.config import TrainConfig
from cryoplug.training.data.balance import Balance
from cryoplug.training.data.loader import epoch_order
from cryoplug.training.data.mixing import Mixer
from cryoplug.training.engine import open_engine
from cryoplug.training.progress import Event, Note
from cryoplug.training.steps import QueuedSteps, make_optimizer, open_steps
from cryoplug.workflows.train import TrainRequest, TrainResult, train

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.usefixtures("no_pictures"),
]

SIDE, COUNT, BATCHES = 64, 45, 11
CONFIG = TrainConfig(epochs=3, lr=0.005, batch_size=4, patch_size=SIDE, device="cuda", augment="dihedral")
MODELS: list[dict[str, Any]] = [
    {"model": "cryo_cnn"},
    {"model": "cryo_cnn", "ema": 0.9, "clip_norm": 0.1, "schedule": "cosine", "warmup_steps": 4},
    {"model": "unet", "model_options": {"depth": 2, "width": 8}, "weight_decay": 0.1},
    {"model": "residual_cnn", "loss": "charbonnier", "precision": "float32"},
    {"model": "cryo_cnn", "augment": "halves", "mix": 0.5},
]
NAMES = ["cryo_cnn", "cryo_cnn with recipe", "unet in bf16", "residual_cnn in float32", "mixtures of halves"]


def pairs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = np.clip(0.5 + 0.05 * np.cumsum(rng.standard_normal((COUNT, SIDE, SIDE), np.float32), axis=2), 0, 1)
    return (clean + 0.1 * rng.standard_normal(clean.shape, np.float32)).astype("<f4"), clean.astype("<f4")


def write(folder: Path, noisy: np.ndarray, clean: np.ndarray) -> Path:
    folder.mkdir()
    noisy.tofile(folder / "noisy_train.bin")
    clean.tofile(folder / "clean_train.bin")
    return folder


def run(data: Path, out: Path, events: list[Event] | None = None, **changes: Any) -> TrainResult:
    config = dataclasses.replace(CONFIG, **changes)
    request = TrainRequest(data, config, save=True, checkpoint_dir=out)
    return train(request, (events if events is not None else []).append)


def outcome(out: Path) -> tuple[list[Any], str]:
    lines = [json.loads(line) for line in next(out.rglob("metrics.jsonl")).read_text().splitlines()]
    return [(line["train_loss"], line["val_loss"]) for line in lines], load_checkpoint(next(out.iterdir())).sha256


@pytest.mark.parametrize("fields", MODELS, ids=NAMES)
def test_every_cache_gives_the_same_bits_and_the_network_learns(tmp_path: Path, fields: dict[str, Any]) -> None:
    data = write(tmp_path / "data", *pairs())
    found = {}
    for cache in ("none", "gpu", "ram", "auto"):
        events: list[Event] = []
        result = run(data, tmp_path / cache, events, cache=cache, **fields)
        found[cache] = outcome(tmp_path / cache)
        kept = any(isinstance(event, Note) and "stays in GPU memory" in event.text for event in events)
        assert kept == (cache in ("gpu", "auto"))
    assert len({str(value) for value in found.values()}) == 1, found
    # The deeper networks, and noisier targets, need more than 33 steps.
    quick = fields["model"] == "cryo_cnn" and "mix" not in fields
    assert result.epochs[-1].train_loss < (0.7 if quick else 1.1) * result.first_batch_loss


@pytest.mark.parametrize("fields", MODELS, ids=NAMES)
@pytest.mark.parametrize("moment", [1, 7, 13])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], moment: int
) -> None:
    data = write(tmp_path / "data", *pairs())
    run(data, tmp_path / "straight", **fields)
    real, sent = QueuedSteps.take, []

    def take(self: QueuedSteps, *arguments: Any, number: int, **options: Any) -> None:
        real(self, *arguments, number=number, **options)
        # Preparing takes steps that change nothing, number 1 too: a signal then is heeded after the first batch.
        if number == moment and not sent:
            sent.append(number)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(QueuedSteps, "take", take)
    epoch, batch = 1 + (moment - 1) // BATCHES, 1 + (moment - 1) % BATCHES
    with pytest.raises(Stopped, match=f"epoch {epoch}, batch {batch} is saved"):
        run(data, tmp_path / "out", **fields)
    run(data, tmp_path / "out", **fields)
    assert outcome(tmp_path / "out") == outcome(tmp_path / "straight")


@pytest.mark.parametrize("batch", [1, 3, 5, 11])
def test_a_bad_pixel_is_named_with_the_batch_that_it_is_in(tmp_path: Path, batch: int) -> None:
    noisy, clean = pairs()
    patch = int(epoch_order(np.arange(41), seed=0, epoch=1, shuffle=True)[4 * (batch - 1)])
    clean[patch, 3, 4] = np.inf
    with pytest.raises(DivergedError, match=rf"epoch 1, batch {batch}: .*; patch {patch} of train: 1 clean pixels"):
        run(write(tmp_path / "data", noisy, clean), tmp_path / "out")


def test_an_overflow_of_half_precision_is_left_to_the_plain_layers(tmp_path: Path) -> None:
    noisy, clean = pairs()
    noisy[5] *= 1e6
    result = run(write(tmp_path / "data", noisy, clean), tmp_path / "out", lr=1e-12)
    assert result.epochs[0].train_loss > 1e3


@pytest.mark.parametrize("fields", MODELS, ids=NAMES)
def test_a_recorded_step_gives_the_bits_of_a_launched_one(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    config = dataclasses.replace(CONFIG, **{"precision": "bf16", **fields} if fields["model"] == "unet" else fields)
    spec = model_spec(config.model).configured(config.model_options)
    device = torch.device("cuda", 0)
    found = []
    for recorded in (True, False):
        module = spec.build(seed=1, config=config.model_options)
        precision = "bf16" if config.precision == "bf16" else "float32"
        with open_engine(
            module, spec, device=device, threads=1, loss=config.loss, precision=precision, batch_size=4
        ) as engine:
            if not recorded:
                monkeypatch.setattr(type(engine), "worth_recording", lambda *_: False)
            mixer = Mixer(config.mix, Balance(), seed=1, device=device) if config.mix < 1 else None
            taken = open_steps(engine, make_optimizer(engine, config), config, None, mixer)
            assert isinstance(taken, QueuedSteps)
            generator = torch.Generator(device).manual_seed(1)
            inputs = torch.zeros(2, 4, 1, SIDE, SIDE, device=device)
            losses: list[float] = []
            for number in range(1, 11):
                inputs.copy_(torch.rand(inputs.shape, generator=generator, device=device))
                taken.take(inputs[0], inputs[1], lr=0.01 / number, number=number)
                if number % taken.queue == 0:
                    losses += taken.outcome().losses
            found.append((losses, [tensor.cpu().numpy().tobytes() for tensor in module.state_dict().values()]))
    assert found[0] == found[1] and len(found[0][0]) == 10


def test_a_recording_of_an_earlier_run_is_not_set_free_during_another_one() -> None:
    class Holder:
        """Holds a recording and itself: only the collector of garbage sets it free."""

    def left_behind() -> None:
        holder, tensor = Holder(), torch.zeros(4, device="cuda")
        holder.graph, holder.self = torch.cuda.CUDAGraph(), holder  # type: ignore[attr-defined]
        with torch.cuda.graph(holder.graph):  # type: ignore[attr-defined]
            tensor.add_(1)

    module = CRYO_CNN.build(seed=1)
    thresholds = gc.get_threshold()
    with open_engine(module, CRYO_CNN, device=torch.device("cuda", 0), threads=1, batch_size=4) as engine:
        taken = open_steps(engine, make_optimizer(engine, CONFIG), CONFIG, None)
        inputs = torch.rand(2, 4, 1, SIDE, SIDE, device="cuda")
        taken.take(inputs[0], inputs[1], lr=0.01, number=1)
        gc.collect()
        left_behind()
        try:
            gc.set_threshold(1)  # at the next few objects
            taken.take(inputs[0], inputs[1], lr=0.01, number=2)
        finally:
            gc.set_threshold(*thresholds)
        assert len(taken.outcome().losses) == 2


def test_whole_micrographs_give_the_same_bits_whether_they_stay_on_the_gpu_or_not(tmp_path: Path) -> None:
    shapes = [(200, 333), (150, 150), (64, 400), (256, 131)]
    head = Manifest((SIDE, SIDE), "float16", "halves", "zscore", 0, SIDE, whole=True)
    with create_store(tmp_path / "data", head) as writer:
        for index, shape in enumerate(shapes):
            signal = np.cumsum(np.random.default_rng(index).normal(size=shape), axis=1) / 20
            halves = [signal + 0.3 * np.random.default_rng([index, side]).normal(size=shape) for side in range(2)]
            writer.append_rows("train", halves[0], halves[1], shape)
            writer.acknowledge(MicrographEntry(f"m{index}", "train", shape, 1.0, {"kind": "zscore"}, index=index))
        writer.finish()
    for cache in ("none", "gpu", "ram"):
        run(tmp_path / "data", tmp_path / cache, cache=cache, augment="halves", crops_per_epoch=70)
    assert outcome(tmp_path / "none") == outcome(tmp_path / "gpu") == outcome(tmp_path / "ram")
