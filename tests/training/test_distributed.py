"""Laws of several processes that train together: two give what one gives with batches twice as large."""

from __future__ import annotations

import dataclasses
import gc
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cryoplug.errors import CryoplugError, OtherProcessError, Stopped, UsageError
from cryoplug.formats.mrc import write_mrc
from cryoplug.machine.launch import Launch, torchrun_launch
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.store.pairs import open_store
from cryoplug.training.config import TrainConfig
from cryoplug.training.data.loader import BatchLoader
from cryoplug.training.data.node_cache import SHARED_MEMORY, NodeCache
from cryoplug.training.distributed import Processes, TorchProcesses, open_processes
from cryoplug.training.progress import EpochReport, Event
from cryoplug.training.state import Position, moved
from cryoplug.workflows.convert import ConvertRequest, convert
from cryoplug.workflows.train.request import TrainRequest
from cryoplug.workflows.train.workflow import train

pytestmark = pytest.mark.usefixtures("no_pictures")

SIDE = 24
CONFIG = TrainConfig(epochs=2, lr=0.01, batch_size=2, patch_size=SIDE, val_split=0.25, device="cpu", threads=1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Seventeen pairs, so that no epoch comes out even; noisy beside clean, as bare bins."""
    return write_pairs(tmp_path / "data", 17)


def write_pairs(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    clean = np.clip(0.5 + 0.05 * np.cumsum(rng.standard_normal((count, SIDE, SIDE)), axis=2), 0, 1).astype("<f4")
    folder.mkdir()
    (clean + 0.1 * rng.standard_normal(clean.shape)).astype("<f4").tofile(folder / "noisy_train.bin")
    clean.tofile(folder / "clean_train.bin")
    return folder


@dataclasses.dataclass
class Ended:
    """The error that ended a process."""

    kind: type[CryoplugError]
    exit_code: int
    text: str
    said: bool


def as_processes(count: int, work: Callable[[int], Any], *, nodes: int = 1) -> list[Any]:
    """Run `work` in `count` processes as torchrun would start them, and give what each returned or raised."""
    each = count // nodes
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def begin(rank: int) -> None:
        gc.freeze()  # else the fork's garbage collector copies all that the parent has
        os.environ |= {
            "RANK": str(rank),
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        os.environ |= {"LOCAL_RANK": str(rank % each), "LOCAL_WORLD_SIZE": str(each), "GROUP_RANK": str(rank // each)}
        torch.set_num_threads(1)
        try:
            answers.put((rank, work(rank)))
        except CryoplugError as error:
            answers.put((rank, Ended(type(error), error.exit_code, str(error), getattr(error, "said", False))))

    started = [context.Process(target=begin, args=(rank,)) for rank in range(count)]
    for process in started:
        process.start()
    found = dict(answers.get(timeout=90) for _ in started)
    for process in started:
        process.join(timeout=30)
        assert process.exitcode == 0
    return [found[rank] for rank in range(count)]


def run(data: Path, out: Path | None, events: list[Event] | None = None, **changes: Any) -> Any:
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    config = dataclasses.replace(CONFIG, **{key: value for key, value in changes.items() if key in fields})
    others = {key: value for key, value in changes.items() if key not in fields}
    request = TrainRequest(
        data, config, save=out is not None, checkpoint_dir=out or Path("unused"), evaluate=False, **others
    )
    return train(request, (events if events is not None else []).append)


def metrics(out: Path, model: str = "cryo_cnn") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / model / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_give_the_losses_and_the_checkpoint_of_one_with_twice_the_batch(
    data: Path, tmp_path: Path
) -> None:
    alone = run(data, tmp_path / "alone", batch_size=4)
    together = as_processes(2, lambda rank: run(data, tmp_path / "together").checkpoint)
    assert together[1] is None, "only the first process writes"
    for one, two in zip(metrics(tmp_path / "alone"), metrics(tmp_path / "together"), strict=True):
        for name in ("train_loss", "val_loss"):
            assert two[name] == pytest.approx(one[name], rel=1e-5)
        assert one["best"] == two["best"]
    before, after = load_checkpoint(alone.checkpoint).weights, load_checkpoint(together[0]).weights
    for name, weights in before.items():
        np.testing.assert_allclose(after[name], weights, atol=1e-5)


def test_every_patch_is_read_by_one_process_an_epoch(data: Path) -> None:
    with open_store(data, patch_size=SIDE) as store:
        for world in (1, 2, 3, 5):
            read: list[int] = []
            lengths = set()
            for rank in range(world):
                loader = BatchLoader(store, batch_size=2, processes=Processes(Launch(rank, world)))
                batches = [(b.indices.copy(), b.rows) for b in loader.batches(np.arange(17))]
                read += [int(index) for indices, rows in batches if rows.weight for index in indices]
                lengths.add(len(batches))
            assert sorted(read) == list(range(17)), "each once"
            assert len(lengths) == 1, "all take part in every step"


@pytest.mark.parametrize("whole", [1, 2, 3, 7, 16])
def test_the_weights_of_the_processes_add_up_to_one(whole: int) -> None:
    for world in (1, 2, 3, 5):
        shares = [Processes(Launch(rank, world)).rows(whole) for rank in range(world)]
        assert sum(rows.weight for rows in shares) == pytest.approx(1.0)
        assert all(0 <= rows.own.start < rows.own.stop <= whole for rows in shares), "none is without a row"


@pytest.mark.parametrize("pairs", ["halves", "single"])
def test_mixtures_are_the_same_however_many_processes_make_them(pairs: str, tmp_path: Path) -> None:
    store = whole_store(tmp_path / "store", pairs)
    options: dict[str, Any] = {
        "model": "unet",
        "model_options": {"depth": 1, "width": 4},
        "recipe": "auto",
        "crop_size": 32,
        "crops_per_epoch": 10,
        "ema": 0.9,
        "clip_norm": 0.5,
        "val_split": 0.4,
        "precision": "float32",  # bfloat16 makes of a last bit a whole one
        "seed": 3,
    }
    given = frozenset({*options, "batch_size"} - {"recipe"})
    run(store, tmp_path / "alone", batch_size=4, given=given, **options)
    as_processes(2, lambda rank: str(run(store, tmp_path / "together", given=given, **options).checkpoint))
    for one, two in zip(metrics(tmp_path / "alone", "unet"), metrics(tmp_path / "together", "unet"), strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
        assert two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-5)


def whole_store(folder: Path, pairs: str) -> Path:
    """Convert five micrographs of waves under counted electrons, or their two halves."""
    raw = folder.with_name("raw")
    raw.mkdir()
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:160, :160]
    for number in range(5):
        signal = 1.0 + 0.5 * np.sin(y / (3.0 + number)) * np.cos(x / (5.0 - number / 2))
        names = [f"m{number}.mrc"] if pairs == "single" else [f"m{number}_EVN.mrc", f"m{number}_ODD.mrc"]
        for name in names:
            write_mrc(raw / name, rng.poisson(signal).astype(np.float32), pixel_size_angstrom=2.0)
    request = ConvertRequest((str(raw),), folder, pairs=pairs, store="whole", patch_size=32, test_split=0)
    result = convert(dataclasses.replace(request, accept_unproven=True))
    assert result.exit_code == 0, [file.message for file in result.files]
    return folder


def test_a_signal_to_one_process_ends_all_and_the_run_goes_on_bit_for_bit(data: Path, tmp_path: Path) -> None:
    numbers = multiprocessing.get_context("fork").Array("i", 2)

    def first_part(rank: int) -> Any:
        numbers[rank] = os.getpid()

        def note(event: Event) -> None:  # only the first process is called
            if isinstance(event, EpochReport) and event.epoch == 1:
                os.kill(numbers[1], signal.SIGTERM)
                time.sleep(0.2)

        request = TrainRequest(data, dataclasses.replace(CONFIG, epochs=4), save=True, checkpoint_dir=tmp_path / "cut")
        return train(dataclasses.replace(request, evaluate=False), note)

    errors = as_processes(2, first_part)
    assert [(error.kind, error.exit_code) for error in errors] == [(Stopped, 143), (OtherProcessError, 143)]
    assert errors[1].said, "the first process speaks"
    notes: list[str] = as_processes(2, lambda rank: words_of(data, tmp_path / "cut", epochs=4))[0]
    assert any("going on from epoch 2" in text for text in notes)
    assert not any("bit-identical" in text for text in notes)
    as_processes(2, lambda rank: words_of(data, tmp_path / "straight", epochs=4))
    ends = [next((tmp_path / name / "cryo_cnn").glob("epoch_*")) for name in ("cut", "straight")]
    assert load_checkpoint(ends[0]).sha256 == load_checkpoint(ends[1]).sha256


def words_of(data: Path, out: Path, **changes: Any) -> list[str]:
    """Train and give what was said."""
    events: list[Event] = []
    run(data, out, events, **changes)
    return [event.text for event in events]


def test_the_other_processes_say_nothing_and_write_nothing(data: Path, tmp_path: Path) -> None:
    said = as_processes(2, lambda rank: words_of(data, tmp_path / "out"))
    assert any("2 processes on this machine train together; a step takes 4 patches" in text for text in said[0])
    assert said[1] == []


def test_a_run_that_goes_on_with_another_number_of_processes_says_so(data: Path, tmp_path: Path) -> None:
    as_processes(2, lambda rank: words_of(data, tmp_path, epochs=1))
    notes = words_of(data, tmp_path, epochs=2, resume=True)
    assert any("not bit-identical" in text and "processes was 2, is 1" in text for text in notes)
    assert [record["epoch"] for record in metrics(tmp_path)] == [1, 2]
    # Twice the batch in half the processes are the same steps.
    notes = words_of(data, tmp_path, epochs=3, resume=True)
    notes = as_processes(2, lambda rank: words_of(data, tmp_path, epochs=4, resume=True, batch_size=1))[0]
    assert any("processes was 1, is 2" in text and "patches_a_step" not in text for text in notes)


@pytest.mark.parametrize("world_before", [1, 2, 3])
def test_what_remains_of_a_run_is_the_same_with_other_batches(world_before: int) -> None:
    patches, batch = 60, 2
    for world_now in (1, 2, 3):
        before, now = batch * world_before, batch * world_now
        half = Position(epoch=3, batch=patches // before // 2, step=patches // before * 5 // 2, planned_steps=100)
        there = moved(half, before=before, now=now)
        assert there.epoch == 3
        assert there.batch * now == pytest.approx(half.batch * before, abs=now)
        assert there.step * now == pytest.approx(half.step * before, abs=now)


def test_an_error_that_one_process_meets_is_said_once(data: Path, tmp_path: Path) -> None:
    def elsewhere(rank: int) -> Any:
        return words_of(data if rank == 0 else tmp_path / "not-mounted-here", tmp_path / "out")

    errors = as_processes(2, elsewhere)
    assert [error.exit_code for error in errors] == [4, 4]
    assert "process 1 of 2" in errors[0].text
    assert "not-mounted-here" in errors[0].text
    assert errors[1].said


def test_processes_that_see_different_sets_do_not_train(data: Path, tmp_path: Path) -> None:
    other = write_pairs(tmp_path / "other", 18)
    errors = as_processes(2, lambda rank: words_of(other if rank else data, tmp_path / "out"))
    assert "differs from the first one (data was" in errors[0].text


def test_a_loss_that_is_not_finite_is_said_once_with_the_patch_of_whichever_process(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", 8)
    pixels = np.fromfile(data / "noisy_train.bin", "<f4").reshape(8, SIDE, SIDE)
    pixels[5, 3, 7] = np.nan
    pixels.tofile(data / "noisy_train.bin")
    errors = as_processes(2, lambda rank: words_of(data, tmp_path / "out", val_split=0.0, shuffle=False))
    assert [error.exit_code for error in errors] == [6, 6]
    assert "patch 5" in errors[0].text
    assert "first at y 3, x 7" in errors[0].text
    assert errors[1].said


@pytest.mark.parametrize("nodes", [1, 2])
def test_processes_of_a_machine_read_each_image_once_and_keep_one_copy(data: Path, nodes: int) -> None:
    def reads(rank: int) -> int:
        with open_processes("cpu") as (processes, _), open_store(data, patch_size=SIDE) as store:
            cache = NodeCache(store, processes)
            count = 0
            read = store.read_pixels

            def counted(*args: Any, **options: Any) -> None:
                nonlocal count
                count += 1
                read(*args, **options)

            there, kept = np.empty((2, SIDE, SIDE), np.float32)
            for index in [*range(17), *range(17)]:
                for side in range(2):
                    store.read_crop(side, crop := store.crop_of(index, "train"), there)
                    with pytest.MonkeyPatch.context() as patch:
                        patch.setattr(store, "read_pixels", counted)
                        cache.read_crop(side, crop, kept)
                    np.testing.assert_array_equal(kept, there)
            return count

    counts = as_processes(2 * nodes, reads, nodes=nodes)
    assert [sum(counts[2 * node : 2 * node + 2]) for node in range(nodes)] == [2 * 17] * nodes
    assert not list(SHARED_MEMORY.glob("cryoplug-*"))


def test_what_a_machine_keeps_in_memory_trains_as_what_it_reads(data: Path, tmp_path: Path) -> None:
    as_processes(2, lambda rank: words_of(data, tmp_path / "ram", cache="ram"))
    as_processes(2, lambda rank: words_of(data, tmp_path / "none", cache="none"))
    ends = [next((tmp_path / name / "cryo_cnn").glob("epoch_*")) for name in ("ram", "none")]
    assert load_checkpoint(ends[0]).sha256 == load_checkpoint(ends[1]).sha256
    assert not list(SHARED_MEMORY.glob("cryoplug-*"))


def test_variables_of_torchrun_that_contradict_each_other_are_refused() -> None:
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    assert torchrun_launch({"RANK": "1", "WORLD_SIZE": "2"}) == Launch(), "some schedulers set these, too"
    assert torchrun_launch({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", **place}) == Launch(1, 2, 0, 1)
    for rank, world in (("2", "2"), ("one", "2"), ("-1", "2")):
        with pytest.raises(UsageError, match=f"RANK={rank}"):
            torchrun_launch({"RANK": rank, "WORLD_SIZE": world, **place})


KILLED_ONCE = """
import os, signal, sys
from pathlib import Path

from cryoplug.cli.main import main
from cryoplug.training.distributed import TorchProcesses

metrics, killed = map(Path, sys.argv[1:3])
average = TorchProcesses.average

def killed_once(self, *gradients):
    if self.launch.rank == 1 and metrics.exists() and metrics.read_text().count("\\n") >= 2 and not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return average(self, *gradients)

TorchProcesses.average = killed_once
main(sys.argv[3:])
"""
"""A program whose second process ends with -9 in the third epoch, once."""


@pytest.mark.slow
def test_torchrun_starts_a_killed_process_again_and_the_run_goes_on_to_the_same_weights(
    data: Path, tmp_path: Path
) -> None:
    """The real launcher: one process is killed with -9 in the middle, and all begin again where the state was saved."""
    out = tmp_path / "out"
    (tmp_path / "killed_once.py").write_text(KILLED_ONCE)
    options = ["--epochs", "5", "--batch-size", "2", "--patch-size", str(SIDE), "--device", "cpu", "--save"]
    more = [
        "--no-evaluation",
        "--lr",
        "0.001",
        "--threads",
        "1",
        "--checkpoint-minutes",
        "0",
        "--checkpoint-dir",
        str(out),
    ]
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
    ]
    program = [str(tmp_path / "killed_once.py"), str(out / "cryo_cnn" / "metrics.jsonl"), str(tmp_path / "killed")]
    command = [*torchrun, "1", *program, "train", str(data), *options, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0 and (tmp_path / "killed").exists(), done.stderr
    assert "going on from epoch" in done.stderr and "Traceback" not in done.stderr
    assert [record["epoch"] for record in metrics(out)] == list(range(1, 6))
    as_processes(2, lambda rank: words_of(data, tmp_path / "straight", epochs=5, lr=0.001, val_split=0.1))
    ends = [next((folder / "cryo_cnn").glob("epoch_*")) for folder in (out, tmp_path / "straight")]
    assert load_checkpoint(ends[0]).sha256 == load_checkpoint(ends[1]).sha256


def test_gradients_are_averaged_in_whatever_order_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flat: flat.mul_(3.0))
    shapes = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.randn(6, 4).T
    cut = torch.randn(4, 6)[:, ::2]
    gradients = [*shapes, cut, torch.randn(())]
    wanted = [1.5 * gradient for gradient in gradients]
    loss = TorchProcesses(Launch(rank=0, world=2)).average(torch.tensor(4.0), gradients, 0.5)
    assert loss.item() == 6.0
    for gradient, right in zip(gradients, wanted, strict=True):
        assert torch.allclose(gradient, right)
