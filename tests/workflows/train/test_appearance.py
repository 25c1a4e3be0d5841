"""What a store looks like is measured on the side that denoise will see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoplug.metrics.appearance import measure_appearance
from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.pairs import create_store, open_store
from cryoplug.workflows.train.appearance import MOST_MICROGRAPHS, appearance_of_store

pytestmark = pytest.mark.usefixtures("no_pictures")

SIDE = 64


def write_store(folder: Path, regime: str, pairs: list[list[tuple[np.ndarray, np.ndarray]]]) -> Path:
    with create_store(folder, Manifest((SIDE, SIDE), "float32", regime, "zscore", 0, SIDE)) as writer:
        for number, patches in enumerate(pairs):
            for place, (noisy, clean) in enumerate(patches):
                writer.append("train", noisy.astype("<f4"), clean.astype("<f4"), (0, place * SIDE))
            shape = (SIDE, len(patches) * SIDE)
            writer.acknowledge(MicrographEntry(f"m{number}", "train", shape, 1.5, {"kind": "none"}))
        writer.finish()
    return folder


def draw(count: int, patches: int) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    rng = np.random.default_rng(0)
    return [
        [(2 * rng.standard_normal((SIDE, SIDE)), rng.standard_normal((SIDE, SIDE))) for _ in range(patches)]
        for _ in range(count)
    ]


@pytest.mark.parametrize(("regime", "sigma"), [("halves", 2), ("clean", 2), ("noise", 1)])
def test_added_noise_is_left_out_and_all_else_is_the_input(tmp_path: Path, regime: str, sigma: float) -> None:
    with open_store(write_store(tmp_path / "store", regime, draw(3, 2))) as store:
        found = appearance_of_store(store, np.arange(6))
    assert found is not None and found["micrographs"] == 3
    assert found["sigma"] == pytest.approx([sigma, sigma], rel=0.05)
    assert found["noise_sigma"] == pytest.approx([sigma, sigma], rel=0.2)


def test_patches_of_a_micrograph_are_measured_together_and_only_those_that_train(tmp_path: Path) -> None:
    pairs = draw(4, 3)
    with open_store(write_store(tmp_path / "store", "halves", pairs)) as store:
        found = appearance_of_store(store, np.arange(6))
    expected = [measure_appearance([noisy for noisy, _ in patches]) for patches in pairs[:2]]
    assert found is not None and found["micrographs"] == 2
    skewness = [item.skewness[4] for item in expected if item is not None]
    assert found["skewness"]["4"][0] == pytest.approx(np.mean(skewness), rel=1e-4)


def test_a_large_store_is_sampled_and_bare_bins_count_by_patch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("noisy_train.bin", "clean_train.bin"):
        rng.standard_normal((40, SIDE, SIDE)).astype("<f4").tofile(tmp_path / name)
    with open_store(tmp_path, patch_size=SIDE) as store:
        found = appearance_of_store(store, np.arange(40))
    assert found is not None and found["micrographs"] == MOST_MICROGRAPHS


def test_small_patches_have_no_appearance(tmp_path: Path) -> None:
    for name in ("noisy_train.bin", "clean_train.bin"):
        np.ones((4, 24, 24), "<f4").tofile(tmp_path / name)
    with open_store(tmp_path, patch_size=24) as store:
        assert appearance_of_store(store, np.arange(4)) is None
