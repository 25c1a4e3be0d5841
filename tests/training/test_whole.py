"""Training from whole micrographs: crops lie inside, are functions of (seed, epoch, number), and every way gives the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cryoplug.errors import DivergedError, Stopped, UsageError
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.pairs import PairStore, create_store, open_store
from cryoplug.training.config import TrainConfig
from cryoplug.training.data.augment import Draw, crop_of
from cryoplug.training.data.cache import GpuCache, RamCache
from cryoplug.training.data.device_loader import DeviceLoader
from cryoplug.training.data.loader import BatchLoader, crops_of_epoch, epoch_order
from cryoplug.training.data.split import split_patches
from cryoplug.training.progress import BatchReport, Event
from cryoplug.training.steps import CheckedSteps
from cryoplug.workflows.train import TrainRequest, TrainResult, train

pytestmark = pytest.mark.usefixtures("no_pictures")

SIDE = 8
SHAPES = [(40, 33), (24, 50), (8, 8), (31, 31)]
CPU = torch.device("cpu")


def write(
    folder: Path, shapes: list[tuple[int, int]] = SHAPES, *, bad: int | None = None, dtype: str = "float32"
) -> Path:
    head = Manifest((SIDE, SIDE), dtype, "halves", "zscore", 0, SIDE, whole=True)
    with create_store(folder, head) as writer:
        for index, shape in enumerate(shapes):
            pixels = np.random.default_rng(index).normal(size=(2, *shape)).astype("f4")
            if index == bad:
                pixels[1] = np.nan
            writer.append_rows("train", pixels[0], pixels[1], shape)
            writer.acknowledge(MicrographEntry(f"m{index}.mrc", "train", shape, 1.0, {"kind": "zscore"}, index=index))
        writer.finish()
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PairStore]:
    with open_store(write(tmp_path / "store")) as opened:
        yield opened


def test_crops_lie_inside_reach_every_border_and_are_shared_out_by_area(store: PairStore) -> None:
    seen: dict[int, list[tuple[int, int]]] = {image: [] for image in range(len(SHAPES))}
    for epoch in range(1, 200):
        for index in range(store.count()):
            image, y, x = crop_of(Draw(1, epoch), index, store, "train")
            seen[image].append((y, x))
    for image, (rows, columns) in enumerate(SHAPES):
        places = np.array(seen[image])
        assert places.min(axis=0).tolist() == [0, 0]
        assert places.max(axis=0).tolist() == [rows - SIDE, columns - SIDE]
        assert len(places) == 199 * (rows // SIDE) * (columns // SIDE)


def test_a_crop_depends_on_seed_epoch_and_number_alone(store: PairStore) -> None:
    def places(seed: int, epoch: int, first: int = 0) -> list[Any]:
        return [crop_of(Draw(seed, epoch, turn=True), index, store, "train") for index in range(first, first + 48)]

    assert places(1, 1) == places(1, 1)
    assert len({str(places(*key)) for key in ((1, 1), (1, 2), (2, 1), (1, 1, 48), (1, 1, 96))}) == 5
    # Of 48 pairs, number 48 + k is another crop of the micrograph of number k.
    assert [crop.image for crop in places(1, 1, 48)] == [crop.image for crop in places(1, 1)]


def test_more_crops_than_fit_go_round_again_and_fewer_are_a_part() -> None:
    order = np.array([4, 0, 3])
    assert crops_of_epoch(order, 2, pairs=5).tolist() == [4, 0]
    assert crops_of_epoch(order, 8, pairs=5).tolist() == [4, 0, 3, 9, 5, 8, 14, 10]


def expected_batches(store: PairStore, draw: Draw, order: np.ndarray) -> list[bytes]:
    found = []
    for index in order:
        image, y, x = crop_of(draw, int(index), store, "train")
        for side in range(2):
            pixels = np.empty(store.image_shape(image), np.float32)
            store.read_pixels(side, image, 0, pixels.reshape(-1))
            found.append(pixels[y : y + SIDE, x : x + SIDE].tobytes())
    return found


def gpu_cache(store: PairStore) -> GpuCache:
    return GpuCache(store, CPU, needed=True, note=lambda _: None, free_bytes=lambda _: (1 << 40, 1 << 40))


LOADERS: dict[str, Callable[[PairStore], BatchLoader]] = {
    "host": lambda store: BatchLoader(store, batch_size=3),
    "host, 4 readers": lambda store: BatchLoader(store, batch_size=3, readers=4),
    "ram": lambda store: BatchLoader(store, batch_size=3, source=RamCache(store), readers=3),
    "device": lambda store: DeviceLoader(store, batch_size=3, device=CPU, readers=3),
    "device, ram": lambda store: DeviceLoader(store, batch_size=3, device=CPU, source=RamCache(store), readers=3),
    "device, cache": lambda store: DeviceLoader(store, batch_size=3, device=CPU, cache=gpu_cache(store), readers=3),
}


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_loader_and_every_cache_cuts_the_same_crops(tmp_path: Path, name: str, dtype: str) -> None:
    with open_store(write(tmp_path / "store", dtype=dtype)) as store:
        loader, still = LOADERS[name](store), BatchLoader(store, batch_size=3)
        for epoch in range(1, 4):
            order = epoch_order(np.arange(2 * store.count()), seed=1, epoch=epoch, shuffle=True)
            found = []
            for batch in loader.batches(order, draw=Draw(1, epoch)):
                for noisy, clean in zip(batch.noisy, batch.clean, strict=True):
                    found += [noisy.numpy().tobytes(), clean.numpy().tobytes()]
            assert found == expected_batches(store, Draw(1, epoch), order)
            turned = Draw(1, epoch, turn=True, exchange=True)
            for a, b in zip(loader.batches(order, draw=turned), still.batches(order, draw=turned), strict=True):
                assert torch.equal(a.noisy, b.noisy) and torch.equal(a.clean, b.clean)
            # Validation looks at the fixed grid.
            for a, b in zip(loader.batches(np.arange(9)), still.batches(np.arange(9)), strict=True):
                assert torch.equal(a.noisy, b.noisy) and a.crops == tuple(map(store.crop_of, a.indices.tolist()))


def test_a_single_micrograph_validates_on_rows_that_no_crop_for_training_touches(tmp_path: Path) -> None:
    with open_store(write(tmp_path / "store", [(90, 40)])) as store:
        split = split_patches(store, fraction=0.2, seed=0)
        assert split.end_row is not None
        first = min(store.crop_of(int(index)).y for index in split.validation)
        last = max(
            crop_of(Draw(0, epoch, end_row=split.end_row), int(index), store, "train").y + SIDE
            for index in split.train
            for epoch in range(60)
        )
        assert first == split.end_row == last


def test_a_micrograph_that_is_cut_anywhere_cannot_validate_in_part(store: PairStore, tmp_path: Path) -> None:
    held = [index for index in range(store.count()) if store.micrograph_of(index) == 1]
    (tmp_path / "whole.txt").write_text("".join(f"{index}\n" for index in held))
    (tmp_path / "part.txt").write_text("".join(f"{index}\n" for index in held[1:]))
    assert split_patches(store, fraction=0.1, seed=0, val_indices=tmp_path / "whole.txt").validation.tolist() == held
    with pytest.raises(UsageError, match=r"names only some crops of m1\.mrc"):
        split_patches(store, fraction=0.1, seed=0, val_indices=tmp_path / "part.txt")


def run(data: Path, out: Path, progress: Callable[[Event], None] = lambda _: None, **changes: Any) -> TrainResult:
    fields = {"epochs": 3, "lr": 0.01, "batch_size": 4, "device": "cpu", "threads": 1, "augment": "halves", **changes}
    return train(TrainRequest(data, TrainConfig(**fields), save=True, checkpoint_dir=out), progress)


@pytest.mark.parametrize("fields", [{}, {"crops_per_epoch": 70, "crop_size": 6, "cache": "ram"}], ids=["plain", "more"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    data = write(tmp_path / "store")
    straight = run(data, tmp_path / "straight", **fields)
    real, taken = CheckedSteps.take, [0]

    def take(self: CheckedSteps, *arguments: Any, **options: Any) -> None:
        taken[0] += 1
        real(self, *arguments, **options)
        if taken[0] == 13:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(CheckedSteps, "take", take)
        with pytest.raises(Stopped):
            run(data, tmp_path / "out", **fields)
    resumed = run(data, tmp_path / "out", **fields)
    assert load_checkpoint(tmp_path / "out").sha256 == load_checkpoint(tmp_path / "straight").sha256
    assert [(item.train_loss, item.val_loss) for item in resumed.epochs] == [
        (item.train_loss, item.val_loss) for item in straight.epochs
    ]


def test_an_epoch_takes_so_many_crops_as_were_asked_for(tmp_path: Path) -> None:
    data = write(tmp_path / "store")
    reports: list[BatchReport] = []
    run(
        data,
        tmp_path / "out",
        lambda event: reports.append(event) if isinstance(event, BatchReport) else None,
        epochs=1,
        crops_per_epoch=801,
        batch_size=8,
        val_split=0.0,
    )
    assert [(report.batch, report.batches) for report in reports] == [(100, 101)]
    with pytest.raises(UsageError, match="--crops-per-epoch needs one of convert --store whole"):
        patches = tmp_path / "bins"
        patches.mkdir()
        for name in ("noisy_train.bin", "clean_train.bin"):
            np.zeros((4, 8, 8), "<f4").tofile(patches / name)
        run(patches, tmp_path / "c", patch_size=8, crops_per_epoch=5, augment="none")


def test_a_bad_micrograph_is_named_with_the_place_of_the_crop(tmp_path: Path) -> None:
    data = write(tmp_path / "store", bad=1)
    with open_store(data) as store:
        split = split_patches(store, fraction=0.1, seed=0)
        assert 1 in {store.micrograph_of(int(index)) for index in split.train}
        order = epoch_order(split.train, seed=0, epoch=1, shuffle=True)
        number = next(place for place, index in enumerate(order) if store.micrograph_of(int(index)) == 1)
        _, y, x = crop_of(Draw(0, 1), int(order[number]), store, "train")
    with pytest.raises(DivergedError, match=rf"batch {number // 4 + 1}: .*\(micrograph m1\.mrc, y {y}, x {x}\): 64 "):
        run(data, tmp_path / "out")
