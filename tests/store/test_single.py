"""Stores of single exposures: one side on the disk, given as both; in both formats, patches and whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cryoplug.metrics.micrograph_noise import MicrographNoise
from cryoplug.metrics.noise_power import POINTS
from cryoplug.metrics.noise_shape import NoiseShape
from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.pairs import FORMATS, create_store, open_store
from cryoplug.workflows.inspect.stores import inspect_store

SIDE = 64
NOISE = MicrographNoise((1.0,) * POINTS, NoiseShape(0.0, 0.0), "counts", 0.1, "").to_dict()


def write(path: Path, format: str, *, whole: bool, pairs: str = "single", overwrite: bool = False) -> Manifest:
    head = Manifest((SIDE, SIDE), "float32", pairs, "zscore", 0, SIDE, whole=whole)
    pixels = np.random.default_rng(1).normal(size=(3, SIDE, SIDE)).astype("f4")
    other = pixels if pairs == "single" else -pixels
    with create_store(path, head, format, overwrite=overwrite) as writer:
        for index, split in enumerate(("train", "test", "train")):
            if whole:
                for rows in (slice(0, 40), slice(40, SIDE)):
                    writer.append_rows(split, pixels[index][rows], other[index][rows], (SIDE, SIDE))
            else:
                writer.append(split, pixels[index], other[index], (0, 0))
            entry = MicrographEntry(f"m{index}.mrc", split, (SIDE, SIDE), 1.0, {"kind": "zscore"}, index=index)
            writer.acknowledge(dataclasses.replace(entry, noise=NOISE if pairs == "single" else None))
        return writer.finish()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("whole", [False, True])
def test_the_one_side_is_stored_once_and_read_as_both(tmp_path: Path, format: str, whole: bool) -> None:
    manifest = write(tmp_path / "s", format, whole=whole)
    pixels = np.random.default_rng(1).normal(size=(3, SIDE, SIDE)).astype("f4")
    with open_store(tmp_path / "s") as store:
        assert store.manifest == manifest
        assert store.manifest is not None
        assert store.manifest.micrographs[2].noise == NOISE
        assert store.sides == 1
        noisy, clean = (np.empty((2, SIDE, SIDE), np.float32) for _ in range(2))
        store.read([0, 1], noisy, clean)
        assert np.array_equal(noisy, pixels[[0, 2]])
        assert np.array_equal(noisy, clean)
        assert store.verify() == []
    stored = sum(file.stat().st_size for file in (tmp_path / "s").iterdir() if file.suffix != ".json")
    assert stored < 1.5 * pixels.nbytes
    assert inspect_store(tmp_path / "s", verify=True).findings == ()


@pytest.mark.parametrize("whole", [False, True])
def test_an_overwritten_store_of_pairs_leaves_no_second_side(tmp_path: Path, whole: bool) -> None:
    write(tmp_path / "s", "bin", whole=whole, pairs="halves")
    assert (tmp_path / "s" / "clean_train.bin").is_file()
    write(tmp_path / "s", "bin", whole=whole, overwrite=True)
    assert sorted(file.name for file in (tmp_path / "s").iterdir() if not file.name.startswith(".")) == [
        "dataset.json",
        "noisy_test.bin",
        "noisy_train.bin",
    ]
    with open_store(tmp_path / "s") as store:
        assert store.verify() == []


def test_the_manifest_of_pairs_is_written_as_it_always_was(tmp_path: Path) -> None:
    assert '"noise":' not in write(tmp_path / "s", "bin", whole=False, pairs="halves").to_json()
