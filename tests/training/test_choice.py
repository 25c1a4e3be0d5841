"""Laws of the choice of the epoch that is kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from cryoplug.metrics.halves import HalfImages, halves_moments
from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.pairs import create_store, open_store
from cryoplug.training.choice import judge_epoch, note_epoch, validation_units
from cryoplug.training.config import TrainConfig
from cryoplug.training.schedule import gave_up
from cryoplug.training.state import Position

SIDE = 16


def write_store(folder: Path, *, regime: str, micrographs: int, patches: int = 3) -> Path:
    rng = np.random.default_rng(0)
    with create_store(folder, Manifest((SIDE, SIDE), "float32", regime, "zscore", 0, SIDE)) as writer:
        for number in range(micrographs):
            for place in range(patches):
                noisy, clean = rng.standard_normal((2, SIDE, SIDE)).astype("<f4")
                writer.append("train", noisy, clean, (0, place * SIDE))
            shape = (SIDE, patches * SIDE)
            writer.acknowledge(MicrographEntry(f"m{number}.mrc", "train", shape, 1.5, {"kind": "none"}))
        writer.finish()
    return folder


def follow(losses: list[list[float]]) -> list[tuple[int, int]]:
    """Kept and lowest epoch after each epoch, given the losses on each unit."""
    position, found = Position(), []
    for units in losses:
        mean = float(np.mean(units))
        note_epoch(position, judge_epoch(position, mean, units), mean, units)
        assert position.best_epoch is not None and position.lowest_epoch is not None
        found.append((position.best_epoch, position.lowest_epoch))
        position.epoch += 1
    return found


def test_the_later_of_two_that_differ_by_less_than_the_error_is_kept() -> None:
    steady = [1.0, 2.0, 3.0, 4.0]
    within = [1.02, 1.99, 3.03, 3.99]  # +0.0075 +- 0.010
    beyond = [1.02, 2.01, 3.03, 4.02]  # +0.02 +- 0.004
    assert follow([steady, within]) == [(1, 1), (2, 1)]
    assert follow([steady, beyond]) == [(1, 1), (1, 1)]


def test_a_floor_that_differs_between_micrographs_does_not_hide_a_difference() -> None:
    floor = np.array([0.7, 1.3, 0.9, 2.0])
    better, worse = list(floor + 0.010), list(floor + np.array([0.013, 0.012, 0.014, 0.013]))
    assert follow([better, worse]) == [(1, 1), (1, 1)]
    # The floors spread by a hundred times as much, so that without pairing nothing could be told.
    assert floor.std(ddof=1) / 2 > 50 * 0.003


def test_small_steps_within_the_error_cannot_lead_away_from_the_lowest() -> None:
    rng = np.random.default_rng(1)
    start = rng.uniform(1, 2, 6)
    steps = [list(start + 0.004 * n + 0.02 * rng.standard_normal(6)) for n in range(20)]
    kept, lowest = follow([list(start), *steps])[-1]
    differences = np.array([list(start), *steps][kept - 1]) - np.array([list(start), *steps][lowest - 1])
    assert kept >= lowest
    assert differences.mean() <= differences.std(ddof=1) / np.sqrt(6)


def test_without_units_or_with_a_single_one_the_lowest_loss_is_kept() -> None:
    position = Position()
    for loss, kept in ((1.0, 1), (1.0, 1), (0.9, 3), (0.95, 3)):
        note_epoch(position, judge_epoch(position, loss, []), loss, [])
        assert position.best_epoch == position.lowest_epoch == kept
        position.epoch += 1
    assert follow([[1.0], [1.001], [0.9], [0.9]]) == [(1, 1), (1, 1), (3, 3), (4, 3)]


def test_patience_counts_from_the_lowest_so_that_a_plateau_ends() -> None:
    position = Position(epoch=4, best_epoch=3, lowest_epoch=1)
    assert gave_up(position, TrainConfig(patience=2, epochs=10))
    assert not gave_up(dataclasses.replace(position, lowest_epoch=3), TrainConfig(patience=2, epochs=10))


@pytest.mark.parametrize(
    ("micrographs", "kind", "expected"), [(3, "micrographs", [0, 0, 0, 1, 1, 1]), (1, "patches", [0, 1, 2])]
)
def test_held_out_halves_are_compared_by_micrograph_or_by_patch_of_a_single_one(
    tmp_path: Path, micrographs: int, kind: str, expected: list[int]
) -> None:
    held = np.arange(3, 9) if micrographs == 3 else np.arange(3)
    with open_store(write_store(tmp_path / "store", regime="halves", micrographs=micrographs)) as store:
        units = validation_units(store, TrainConfig(), held)
    assert units is not None and units.kind == kind and units.of_patch.tolist() == expected


@pytest.mark.parametrize("regime", ["noise", "clean"])
def test_where_there_is_a_truth_nothing_is_grouped(tmp_path: Path, regime: str) -> None:
    with open_store(write_store(tmp_path / "store", regime=regime, micrographs=2)) as store:
        assert validation_units(store, TrainConfig(), np.arange(3)) is None


def test_bare_bins_are_halves_only_where_their_sides_are_exchanged(tmp_path: Path) -> None:
    for name in ("noisy_train.bin", "clean_train.bin"):
        np.zeros((4, SIDE, SIDE), "<f4").tofile(tmp_path / name)
    with open_store(tmp_path, patch_size=SIDE) as store:
        assert validation_units(store, TrainConfig(), np.arange(2)) is None
        units = validation_units(store, TrainConfig(augment="halves"), np.arange(2))
    assert units is not None and units.kind == "patches"


def test_the_difference_of_two_losses_is_that_of_the_errors_without_truth() -> None:
    rng = np.random.default_rng(2)
    signal, even, odd = rng.standard_normal((3, 64, 64))
    even, odd = signal + 2 * even, signal + 3 * odd
    outputs = [0.3 * even, 0.2 * even + 0.05 * np.roll(even, 1, 0)]
    losses = [np.var(output - odd) for output in outputs]
    errors = [float(halves_moments(HalfImages(even, odd, output)).error) for output in outputs]
    assert losses[0] - losses[1] == pytest.approx(errors[0] - errors[1], rel=1e-9)
    assert min(losses) > 10 * abs(losses[0] - losses[1])


def test_a_position_with_units_survives_json() -> None:
    position = Position(best_epoch=2, best_loss=0.5, lowest_epoch=1, lowest_units=[0.1, 1 / 3])
    assert Position(**json.loads(json.dumps(dataclasses.asdict(position)))) == position
