from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from cryoplug.errors import FormatError
from cryoplug.store.pairs import PairStore, open_store
from cryoplug.training.loader import BatchLoader, closing_batches, epoch_order, turn_patch

COUNT, SIDE = 11, 16


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    pixels = np.arange(COUNT * SIDE * SIDE, dtype="<f4").reshape(COUNT, SIDE, SIDE)
    pixels.tofile(tmp_path / "noisy_train.bin")
    (-pixels).tofile(tmp_path / "clean_train.bin")
    return open_store(tmp_path, patch_size=SIDE)


def loader(store: PairStore, batch_size: int = 4) -> BatchLoader:
    return BatchLoader(store, batch_size=batch_size, device=torch.device("cpu"))


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
        passes = loader(store).batches(np.arange(COUNT), first=first, limit=limit, augment_seed=(3, 2))
        return [batch.indices.tolist() for batch in passes]

    assert indices(0, None) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert indices(2, None) == [[8, 9, 10]]
    assert indices(1, 2) == [[4, 5, 6, 7]]
    assert indices(3, None) == []


def test_augmentation_turns_both_sides_alike_and_does_not_depend_on_the_batch(store: PairStore) -> None:
    def patches(batch_size: int) -> dict[int, np.ndarray]:
        found = {}
        for batch in loader(store, batch_size).batches(np.arange(COUNT), augment_seed=(3, 2)):
            assert torch.equal(batch.noisy, -batch.clean)
            found |= {int(index): batch.noisy_host[row].copy() for row, index in enumerate(batch.indices)}
        return found

    by_four, by_one = patches(4), patches(1)
    assert all(np.array_equal(by_four[index], by_one[index]) for index in range(COUNT))
    assert all(by_four[index].sum() == by_four[index].astype("f4").sum() for index in range(COUNT))


def test_turning_reaches_all_eight_ways_of_a_square_and_four_of_a_rectangle() -> None:
    def ways(shape: tuple[int, int]) -> set[bytes]:
        found = set()
        for index in range(200):
            noisy = np.arange(shape[0] * shape[1], dtype="f4").reshape(shape)
            clean = noisy.copy()
            turn_patch(noisy, clean, seed=0, epoch=1, index=index)
            assert np.array_equal(noisy, clean)
            assert sorted(noisy.ravel()) == list(range(noisy.size))
            found.add(noisy.tobytes())
        return found

    assert len(ways((3, 3))) == 8
    assert len(ways((2, 3))) == 4


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
    exchanged = 0
    for index in range(400):
        noisy = np.arange(9, dtype="f4").reshape(3, 3)
        clean = -noisy
        plain = noisy.copy()
        turn_patch(plain, clean.copy(), seed=5, epoch=1, index=index)
        turn_patch(noisy, clean, seed=5, epoch=1, index=index, exchange=True)
        assert np.array_equal(noisy, -clean)
        assert np.array_equal(np.abs(noisy), plain)
        exchanged += int(noisy.sum() < 0)
    assert 160 < exchanged < 240


def test_an_epoch_of_halves_gives_every_pair_once_in_either_order(store: PairStore) -> None:
    signs = []
    for batch in loader(store).batches(np.arange(COUNT), augment_seed=(3, 2), exchange=True):
        assert torch.equal(batch.noisy, -batch.clean)
        signs += batch.noisy.sum(dim=(1, 2, 3)).sign().tolist()
    assert len(signs) == COUNT and set(signs) == {-1.0, 1.0}
