from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cryoplug.errors import DeviceError, FormatError, UsageError
from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.pairs import PairStore, create_store, open_store
from cryoplug.training.data.augment import Draw, orientation_of, place
from cryoplug.training.data.cache import GpuCache, RamCache
from cryoplug.training.data.device_loader import DeviceLoader
from cryoplug.training.data.loader import BatchLoader, closing_batches, epoch_order

COUNT, SIDE = 11, 16
TURNED, EXCHANGED = Draw(3, 2, turn=True), Draw(3, 2, turn=True, exchange=True)


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    pixels = np.arange(COUNT * SIDE * SIDE, dtype="<f4").reshape(COUNT, SIDE, SIDE)
    pixels.tofile(tmp_path / "noisy_train.bin")
    (-pixels).tofile(tmp_path / "clean_train.bin")
    return open_store(tmp_path, patch_size=SIDE)


def loader(store: PairStore, batch_size: int = 4) -> BatchLoader:
    return BatchLoader(store, batch_size=batch_size)


def test_every_patch_comes_once_and_pairs_stay_together(store: PairStore) -> None:
    order = epoch_order(np.arange(COUNT), seed=1, epoch=1, shuffle=True)
    seen: list[int] = []
    for batch in loader(store).batches(order):
        assert batch.noisy.shape == (len(batch.indices), 1, SIDE, SIDE)
        assert torch.equal(batch.noisy, -batch.clean)
        assert (batch.noisy[:, 0, 0, 0] == torch.from_numpy(batch.indices) * SIDE * SIDE).all()
        seen += batch.indices.tolist()
    assert seen == order.tolist() and sorted(seen) == list(range(COUNT))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    indices = np.arange(100)
    first = epoch_order(indices, seed=1, epoch=1, shuffle=True)
    assert np.array_equal(first, epoch_order(indices, seed=1, epoch=1, shuffle=True))
    assert not np.array_equal(first, epoch_order(indices, seed=1, epoch=2, shuffle=True))
    assert not np.array_equal(first, epoch_order(indices, seed=2, epoch=1, shuffle=True))
    assert np.array_equal(indices, epoch_order(indices, seed=1, epoch=1, shuffle=False))


def test_a_pass_that_begins_in_the_middle_gives_the_rest(store: PairStore) -> None:
    def indices(first: int, limit: int | None) -> list[list[int]]:
        passes = loader(store).batches(np.arange(COUNT), first=first, limit=limit, draw=TURNED)
        return [batch.indices.tolist() for batch in passes]

    assert indices(0, None) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert indices(2, None) == [[8, 9, 10]]
    assert indices(1, 2) == [[4, 5, 6, 7]]
    assert indices(3, None) == []


def test_augmentation_turns_both_sides_alike_and_does_not_depend_on_the_batch(store: PairStore) -> None:
    def patches(batch_size: int) -> dict[int, np.ndarray]:
        found = {}
        for batch in loader(store, batch_size).batches(np.arange(COUNT), draw=TURNED):
            assert torch.equal(batch.noisy, -batch.clean)
            found |= {int(index): batch.noisy[row, 0].numpy().copy() for row, index in enumerate(batch.indices)}
        return found

    by_four, by_one = patches(4), patches(1)
    assert all(np.array_equal(by_four[index], by_one[index]) for index in range(COUNT))
    assert all(by_four[index].sum() == by_four[index].astype("f4").sum() for index in range(COUNT))


def test_turning_reaches_all_eight_ways_of_a_square_and_four_of_a_rectangle() -> None:
    def ways(shape: tuple[int, int]) -> set[bytes]:
        pixels = torch.arange(shape[0] * shape[1], dtype=torch.float32).reshape(shape)
        found = set()
        for index in range(200):
            target = torch.full(shape, torch.nan)
            place(target, pixels, orientation_of(Draw(0, 1, turn=True), index, square=shape[0] == shape[1]))
            assert sorted(target.flatten().tolist()) == list(range(pixels.numel()))
            found.add(target.numpy().tobytes())
        return found

    assert len(ways((3, 3))) == 8
    assert len(ways((2, 3))) == 4


def test_a_turn_is_so_many_quarter_turns_to_the_left_and_then_upside_down() -> None:
    pixels = torch.arange(9.0).reshape(3, 3)
    for index in range(40):
        way = int(np.random.default_rng([5, 4, index]).integers(8))
        expected = np.rot90(pixels.numpy(), way % 4)[:: -1 if way >= 4 else 1]
        target = torch.empty(3, 3)
        place(target, pixels, orientation_of(Draw(5, 4, turn=True), index, square=True))
        assert np.array_equal(target.numpy(), expected)


def test_an_error_while_reading_reaches_the_consumer(store: PairStore, tmp_path: Path) -> None:
    with open(tmp_path / "noisy_train.bin", "r+b") as stream:
        stream.truncate(SIDE * SIDE * 4 * 5)
    with pytest.raises(FormatError, match="ends before patch 5"):
        for batch in loader(store).batches(np.arange(COUNT)):
            assert batch.indices[-1] < 4


def test_leaving_early_ends_the_reader_thread(store: PairStore) -> None:
    with closing_batches(loader(store, 1).batches(np.arange(COUNT))) as batches:
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cryoplug-loader")]


def test_sides_are_exchanged_in_half_of_the_cases_and_turned_as_without_it() -> None:
    turns = [orientation_of(EXCHANGED, index, square=True) for index in range(400)]
    assert [dataclasses.replace(turn, exchange=False) for turn in turns] == [
        orientation_of(TURNED, index, square=True) for index in range(400)
    ]
    assert 160 < sum(turn.exchange for turn in turns) < 240


def test_an_epoch_of_halves_gives_every_pair_once_in_either_order(store: PairStore) -> None:
    signs = []
    for batch in loader(store).batches(np.arange(COUNT), draw=EXCHANGED):
        assert torch.equal(batch.noisy, -batch.clean)
        signs += batch.noisy.sum(dim=(1, 2, 3)).sign().tolist()
    assert len(signs) == COUNT and set(signs) == {-1.0, 1.0}


CPU = torch.device("cpu")
PLENTY = (1 << 40, 1 << 40)


def gpu_cache(store: PairStore, said: list[str] | None = None, free: tuple[int, int] = PLENTY) -> GpuCache:
    note = (said if said is not None else []).append
    return GpuCache(store, CPU, needed=False, note=note, free_bytes=lambda _: free)


LOADERS: dict[str, Callable[[PairStore], BatchLoader]] = {
    "host": lambda store: BatchLoader(store, batch_size=2),
    "host, 3 readers": lambda store: BatchLoader(store, batch_size=2, readers=3),
    "ram": lambda store: BatchLoader(store, batch_size=2, source=RamCache(store)),
    "device": lambda store: DeviceLoader(store, batch_size=2, device=CPU),
    "device, 5 readers": lambda store: DeviceLoader(store, batch_size=2, device=CPU, readers=5),
    "device, ram": lambda store: DeviceLoader(store, batch_size=2, device=CPU, source=RamCache(store)),
    "device, cache": lambda store: DeviceLoader(store, batch_size=2, device=CPU, cache=gpu_cache(store), readers=3),
}


def pixels_of(loader: BatchLoader, epochs: int = 3) -> list[bytes]:
    found = []
    for epoch in range(1, epochs + 1):
        order = epoch_order(np.arange(1, COUNT), seed=7, epoch=epoch, shuffle=True)
        for batch in loader.batches(order, draw=Draw(7, epoch, turn=True, exchange=True)):
            found += [batch.noisy.numpy().tobytes(), batch.clean.numpy().tobytes()]
        found += [batch.noisy.numpy().tobytes() for batch in loader.batches(np.arange(1))]
    return found


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_loader_and_every_cache_gives_the_same_bits(tmp_path: Path, name: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    head = Manifest((SIDE, SIDE + 4), dtype, "halves", "zscore", 0, SIDE)
    with create_store(tmp_path / "store", head) as writer:
        for index in range(COUNT):
            writer.append("train", *rng.normal(size=(2, SIDE, SIDE + 4)), (0, 0))
            writer.acknowledge(MicrographEntry(f"m{index}", "train", (SIDE, SIDE + 4), 1.0, {"kind": "zscore"}))
        writer.finish()
    with open_store(tmp_path / "store") as store:
        assert pixels_of(LOADERS[name](store)) == pixels_of(BatchLoader(store, batch_size=2))


def test_a_cached_set_is_read_from_the_disk_once_and_never_again(
    store: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    cache = gpu_cache(store, said)
    cached = DeviceLoader(store, batch_size=2, device=CPU, cache=cache)
    expected = pixels_of(BatchLoader(store, batch_size=2), epochs=4)
    assert pixels_of(cached, epochs=2) == expected[: len(expected) // 2]
    assert cache.known == set(range(COUNT))

    def read(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(store, "read_pixels", read)
    monkeypatch.setattr(store, "read_crop", read)
    assert pixels_of(cached, epochs=4) == expected
    assert said == ["the training set (0.0 MiB) stays in GPU memory once it is read"]


def test_a_set_that_does_not_fit_is_read_again_unless_it_was_to_be_kept(store: PairStore) -> None:
    said: list[str] = []
    short = (1 << 30) + 2 * COUNT * SIDE * SIDE * 4 - 1, 1 << 30
    cache = gpu_cache(store, said, short)
    found = pixels_of(DeviceLoader(store, batch_size=2, device=CPU, cache=cache))
    assert found == pixels_of(BatchLoader(store, batch_size=2))
    assert not cache.is_open and said == [
        "the training set takes 0.0 MiB, 0.0 MiB of GPU memory can be spared: it is read from the disk in every epoch"
    ]
    needed = GpuCache(store, CPU, needed=True, note=said.append, free_bytes=lambda _: short)
    with pytest.raises(DeviceError, match=r"--cache gpu: the training set takes .* give --cache auto"):
        needed.try_to_open()
    just_enough = gpu_cache(store, said, (short[0] + 1, short[1]))
    assert just_enough.try_to_open() and just_enough.is_open
    with pytest.raises(UsageError, match="--cache ram: the training set takes"):
        RamCache(store, available_bytes=lambda: 2 * COUNT * SIDE * SIDE * 4)


def test_a_pass_that_is_left_while_images_are_loaded_leaves_none_half_loaded(store: PairStore) -> None:
    cache = gpu_cache(store)
    cached = DeviceLoader(store, batch_size=1, device=CPU, cache=cache)
    with closing_batches(cached.batches(np.arange(COUNT))) as batches:
        for _ in range(5):
            next(batches)
    assert not cache.loads
    assert pixels_of(cached) == pixels_of(BatchLoader(store, batch_size=1))


def test_an_error_while_a_cache_is_filled_reaches_the_consumer(store: PairStore, tmp_path: Path) -> None:
    with open(tmp_path / "noisy_train.bin", "r+b") as stream:
        stream.truncate(SIDE * SIDE * 4 * 9)
    with pytest.raises(FormatError, match="ends before patch 9"):
        for batch in DeviceLoader(store, batch_size=1, device=CPU, cache=gpu_cache(store)).batches(np.arange(COUNT)):
            assert batch.indices[-1] < 9


@pytest.mark.parametrize("known", [True, False])
def test_a_cache_opens_at_once_when_the_memory_of_a_step_is_known(store: PairStore, known: bool) -> None:
    cache = gpu_cache(store)
    cached = DeviceLoader(store, batch_size=2, device=CPU, cache=cache)
    seen = []

    def compute(noisy: torch.Tensor, clean: torch.Tensor) -> bool:
        seen.append((noisy.shape, float(noisy.abs().sum() + clean.abs().sum())))
        return known

    cached.prepare(compute)
    assert seen == [((2, 1, SIDE, SIDE), 0.0)]
    with closing_batches(cached.batches(np.arange(COUNT))) as batches:
        next(batches)
        assert cache.is_open == known
    assert pixels_of(cached) == pixels_of(BatchLoader(store, batch_size=2))
