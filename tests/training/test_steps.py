"""Queued steps are checked steps, looked at later: the same bits, and a step that fails changes nothing.

What a GPU does is done here on the CPU, where torch's fused optimizer heeds the same flag.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cryoplug.errors import DivergedError, Stopped
from cryoplug.models.registry import CRYO_CNN
from cryoplug.training import engine as engines
from cryoplug.training import loop, steps
from cryoplug.training.average import WeightAverage
from cryoplug.training.config import TrainConfig
from cryoplug.training.data.loader import epoch_order
from cryoplug.training.engine import WholeBatchEngine
from cryoplug.training.steps import QUEUE, CheckedSteps, QueuedSteps, Steps
from cryoplug.workflows.train import TrainRequest, train, workflow

SIDE, COUNT = 12, 37
CONFIG = TrainConfig(
    epochs=3,
    lr=0.01,
    batch_size=2,
    patch_size=SIDE,
    val_split=0.1,
    device="cpu",
    threads=1,
    augment="dihedral",
    schedule="cosine",
    warmup_steps=3,
    clip_norm=0.1,
    ema=0.9,
)


def fused_adam(engine: engines.Engine, config: TrainConfig) -> torch.optim.Adam:
    lr = torch.tensor(config.lr)
    return torch.optim.Adam(engine.module.parameters(), lr=lr, betas=(0.9, 0.999), eps=1e-8, fused=True)


def started(kind: type[Steps]) -> tuple[Steps, Callable[[], list[np.ndarray]]]:
    module = CRYO_CNN.build(seed=3)
    engine = WholeBatchEngine(module)
    optimizer = fused_adam(engine, CONFIG)
    average = WeightAverage(module, 0.9)

    def everything() -> list[np.ndarray]:
        tensors = [
            *module.state_dict().values(),
            *(value for state in optimizer.state.values() for value in state.values()),
        ]
        return [tensor.numpy().copy() for tensor in tensors] + list(average.weights().values())

    return kind(engine, optimizer, CONFIG, average), everything  # type: ignore[call-arg, arg-type]


def batches(count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        yield torch.rand(2, 1, SIDE, SIDE, generator=generator), torch.rand(2, 1, SIDE, SIDE, generator=generator)


@pytest.mark.parametrize(("side", "value"), [(0, torch.nan), (1, torch.inf)])
def test_a_step_that_fails_and_all_after_it_change_nothing(side: int, value: float) -> None:
    one_by_one, state = started(CheckedSteps)
    expected = []
    for number, (noisy, clean) in enumerate(batches(3), start=1):
        one_by_one.take(noisy, clean, lr=0.01 / number, number=number)
        expected += one_by_one.outcome().losses
    wanted = state()

    queued, state = started(QueuedSteps)
    for number, pair in enumerate(batches(QUEUE), start=1):
        if number == 4:
            pair[side][1, 0, 2, 3] = value
        queued.take(*pair, lr=0.01 / number, number=number)
    outcome = queued.outcome()
    assert list(outcome.losses) == expected
    assert outcome.failed is not None and not np.isfinite(outcome.failed)
    assert all(np.array_equal(a, b) for a, b in zip(state(), wanted, strict=True))
    assert queued.outcome().losses == ()

    # Afterwards both go on alike.
    noisy, clean = next(batches(1))
    for item in (one_by_one, queued):
        item.take(noisy, clean, lr=0.01, number=4)
    assert one_by_one.outcome() == queued.outcome()


def test_preparing_changes_nothing() -> None:
    prepared, state = started(QueuedSteps)
    before = state()
    assert prepared.prepare(*torch.zeros(2, 2, 1, SIDE, SIDE))
    after = state()
    assert all(np.array_equal(a, b) for a, b in zip(before[:6], after[:6], strict=True)), "weights"
    assert all(not item.any() for item in after[6:-6]), "moments and their step"
    assert all(np.array_equal(a, b) for a, b in zip(before[-6:], after[-6:], strict=True)), "average"
    plain, other = started(QueuedSteps)
    for number, (noisy, clean) in enumerate(batches(QUEUE), start=1):
        for item in (prepared, plain):
            item.take(noisy, clean, lr=0.01, number=number)
    assert prepared.outcome() == plain.outcome()
    assert all(np.array_equal(a, b) for a, b in zip(state(), other(), strict=True))


def test_weight_decay_takes_a_part_of_the_weights_beside_adams_step() -> None:
    after = {}
    for decay in (0.0, 0.5):
        engine = WholeBatchEngine(CRYO_CNN.build(seed=3))
        before = [parameter.detach().clone() for parameter in engine.module.parameters()]
        config = dataclasses.replace(CONFIG, weight_decay=decay)
        taken = CheckedSteps(engine, steps.make_optimizer(engine, config), config, None)
        taken.take(*next(batches(1)), lr=0.01, number=1)
        after[decay] = [parameter.detach() for parameter in engine.module.parameters()]
    for old, plain, decayed in zip(before, after[0.0], after[0.5], strict=True):
        torch.testing.assert_close(decayed, plain - 0.01 * 0.5 * old)


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train on the CPU as on a GPU."""
    monkeypatch.setattr(workflow, "_draw_loss_curve", lambda *_: None)
    monkeypatch.setattr(engines, "bands_are_exact", lambda _: False)
    monkeypatch.setattr(steps, "make_optimizer", fused_adam)
    monkeypatch.setattr(loop, "open_steps", QueuedSteps)


def pairs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = rng.random((COUNT, SIDE, SIDE), np.float32)
    return clean + 0.1 * rng.standard_normal(clean.shape, np.float32), clean


def write(folder: Path, noisy: np.ndarray, clean: np.ndarray) -> Path:
    folder.mkdir()
    noisy.tofile(folder / "noisy_train.bin")
    clean.tofile(folder / "clean_train.bin")
    return folder


def run(data: Path, out: Path, **changes: Any) -> tuple[list[Any], bytes]:
    config = dataclasses.replace(CONFIG, **changes)
    train(TrainRequest(data, config, save=True, checkpoint_dir=out), lambda _: None)
    return outcome(out)


def outcome(out: Path) -> tuple[list[Any], bytes]:
    folder = out / "cryo_cnn"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    state = (folder / "resume" / "state.safetensors").read_bytes()
    tensors = state[8 + int.from_bytes(state[:8], "little") :]
    return [(line["train_loss"], line["val_loss"]) for line in lines], tensors


@pytest.mark.usefixtures("queued")
@pytest.mark.parametrize("fields", [{}, {"augment": "halves", "mix": 0.5}], ids=["pairs", "mixtures of halves"])
def test_a_queued_run_gives_the_bits_of_a_checked_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    data = write(tmp_path / "data", *pairs())
    found = run(data, tmp_path / "queued", **fields)
    monkeypatch.setattr(loop, "open_steps", CheckedSteps)
    assert run(data, tmp_path / "checked", **fields) == found
    assert len(found[0]) == 3


@pytest.mark.usefixtures("queued")
@pytest.mark.parametrize("moment", [1, 3, 5, 17, 18, 30])
def test_a_signal_among_queued_steps_is_heeded_at_once_and_no_bit_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    data = write(tmp_path / "data", *pairs())
    straight = run(data, tmp_path / "straight")
    real, taken = QueuedSteps.take, [0]

    def take(self: QueuedSteps, *arguments: Any, **options: Any) -> None:
        taken[0] += 1
        real(self, *arguments, **options)
        if taken[0] == moment:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(QueuedSteps, "take", take)
    place = f"epoch {1 + (moment - 1) // 17}, batch {1 + (moment - 1) % 17} is saved"
    with pytest.raises(Stopped, match=place):
        run(data, tmp_path / "out")
    assert taken == [moment]
    assert run(data, tmp_path / "out") == straight


@pytest.mark.usefixtures("queued")
@pytest.mark.parametrize("batch", [1, 4, 5, 6, 17])
def test_a_bad_pixel_is_named_with_the_batch_that_it_is_in(tmp_path: Path, batch: int) -> None:
    noisy, clean = pairs()
    order = epoch_order(np.arange(34), seed=0, epoch=1, shuffle=True)
    patch = int(order[2 * batch - 1])
    noisy[patch, 3, 4] = np.nan
    with pytest.raises(DivergedError) as raised:
        run(write(tmp_path / "data", noisy, clean), tmp_path / "out")
    message = str(raised.value)
    assert f"training diverged in epoch 1, batch {batch}: the loss is nan; patch {patch} of train: 1 noisy" in message


@pytest.mark.usefixtures("queued")
def test_the_state_saved_before_a_bad_batch_is_finite_and_goes_on_to_the_same_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy, clean = pairs()
    noisy[int(epoch_order(np.arange(34), seed=0, epoch=1, shuffle=True)[6]), 3, 4] = np.nan  # in batch 4
    data = write(tmp_path / "data", noisy, clean)
    real, taken = QueuedSteps.take, [0]

    def take(self: QueuedSteps, *arguments: Any, **options: Any) -> None:
        taken[0] += 1
        real(self, *arguments, **options)
        if taken[0] == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(QueuedSteps, "take", take)
    with pytest.raises(Stopped, match="epoch 1, batch 3 is saved"):
        run(data, tmp_path / "out")
    from safetensors.numpy import load_file

    state = load_file(tmp_path / "out" / "cryo_cnn" / "resume" / "state.safetensors")
    assert all(np.isfinite(array).all() for array in state.values())
    with pytest.raises(DivergedError, match="epoch 1, batch 4: the loss is nan"):
        run(data, tmp_path / "out")


class Overflowing(WholeBatchEngine):
    """Fails on some batches when it computes fast, as half precision does."""

    def enqueue(self, noisy: torch.Tensor, clean: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        loss, gradients = super().enqueue(noisy, clean)
        bad = noisy[0, 0, 0, 0] > 0.7
        return torch.where(bad, torch.inf, loss), gradients

    def loss_and_gradients(self, noisy: torch.Tensor, clean: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
        loss, gradients = super().enqueue(noisy, clean)
        return loss.item(), gradients


@pytest.mark.usefixtures("queued")
def test_a_batch_that_overflows_is_taken_again_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "data", *pairs())
    expected = run(data, tmp_path / "plain")
    repeated, real = [0], Overflowing.loss_and_gradients

    def counted(self: Overflowing, noisy: torch.Tensor, clean: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
        repeated[0] += 1
        return real(self, noisy, clean)

    monkeypatch.setattr(Overflowing, "loss_and_gradients", counted)
    monkeypatch.setattr(engines, "WholeBatchEngine", Overflowing)
    assert run(data, tmp_path / "overflowing") == expected
    assert 0 < repeated[0] < 51, "some batches overflow, not all"
