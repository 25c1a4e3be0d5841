"""The founding recipe, patch by patch, and what a store is made of."""

from __future__ import annotations

import numpy as np
import pytest

from cryoplug.core.noise import founding_noise, patch_rng
from cryoplug.store.pairs import open_store
from cryoplug.workflows.convert import convert
from cryoplug.workflows.convert.run import pick_test_micrographs
from workflows.convert.made_inputs import (
    BINS,
    GRID,
    PATCH,
    SHAPE,
    folder_of,
    image,
    names,
    patches,
    request,
    write,
)


def test_the_founding_recipe_is_followed_to_the_bit(tmp_path):
    path = write(tmp_path / "a.mrc", image(1))
    result = convert(request(path, tmp_path / "s", seed=5))
    assert result.exit_code == 0
    pixels = image(1)
    scale = np.percentile(pixels[pixels > 0], 95)
    expected = np.clip(pixels / np.float32(scale), 0, 1)
    noisy, clean = patches(tmp_path / "s", "noisy_train.bin"), patches(tmp_path / "s", "clean_train.bin")
    assert len(clean) == len(GRID)
    for k, (y, x) in enumerate(GRID):
        np.testing.assert_allclose(clean[k], expected[y : y + PATCH, x : x + PATCH], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(noisy[k], founding_noise(clean[k], patch_rng(5, 0, y, x)))
    with open_store(tmp_path / "s") as store:
        assert store.manifest.windows["train"] == tuple((0, y, x) for y, x in GRID)
        (entry,) = store.manifest.micrographs
        assert (entry.name, entry.shape, entry.pixel_size_angstrom) == ("a.mrc", SHAPE, 1.5)
        assert entry.normalization["scale"] == pytest.approx(scale, rel=1e-6)


@pytest.mark.parametrize("stride", [1, 17, 64, 90, 500])
def test_every_grid_position_holds_its_own_pixels(tmp_path, stride):
    pixels = np.arange(80 * 90, dtype=np.float32).reshape(80, 90) + 1
    path = write(tmp_path / "a.mrc", pixels)
    convert(request(path, tmp_path / "s", patch_size=33, stride=stride, threads=3))
    clean = np.fromfile(tmp_path / "s" / "clean_train.bin", "<f4").reshape(-1, 33, 33)
    scale = np.float32(np.percentile(pixels, 95))
    grid = [(y, x) for y in range(0, 80 - 33 + 1, stride) for x in range(0, 90 - 33 + 1, stride)]
    assert len(clean) == len(grid)
    for patch, (y, x) in zip(clean, grid, strict=True):
        np.testing.assert_allclose(patch, np.clip(pixels[y : y + 33, x : x + 33] / scale, 0, 1), rtol=1e-6)


@pytest.mark.parametrize("format", ["bin", "hdf5"])
def test_the_result_does_not_depend_on_the_number_of_threads(tmp_path, format):
    folder = folder_of(tmp_path / "in", 3)
    prints = {
        convert(request(folder, tmp_path / f"s{threads}", threads=threads, format=format)).details["fingerprint"]
        for threads in (1, 2, 5)
    }
    assert len(prints) == 1


def test_both_formats_hold_the_same_pairs(tmp_path):
    folder = folder_of(tmp_path / "in", 2)
    one = convert(request(folder, tmp_path / "a"))
    two = convert(request(folder, tmp_path / "b", format="hdf5"))
    three = convert(request(folder, tmp_path / "c.h5", format="hdf5"))
    assert one.details["fingerprint"] == two.details["fingerprint"] == three.details["fingerprint"]
    assert names(tmp_path / "b") == {"dataset.h5"}
    assert names(tmp_path / "a") == {"dataset.json", *BINS}


def test_float16_is_the_float32_store_rounded(tmp_path):
    folder = folder_of(tmp_path / "in", 1)
    convert(request(folder, tmp_path / "a"))
    convert(request(folder, tmp_path / "b", dtype="float16"))
    for name in BINS[:2]:
        half = patches(tmp_path / "b", name, "<f2")
        np.testing.assert_array_equal(half, patches(tmp_path / "a", name).astype(np.float16))


def test_zscore_noise_is_the_recipe_on_six_sigma(tmp_path):
    path = write(tmp_path / "a.mrc", image(1) - 6802)
    convert(request(path, tmp_path / "s", normalize="zscore"))
    noisy, clean = patches(tmp_path / "s", "noisy_train.bin"), patches(tmp_path / "s", "clean_train.bin")
    assert abs(float(clean.mean())) < 0.05
    assert float(clean.std()) == pytest.approx(1, abs=0.05)
    assert min(noisy.min(), clean.min()) >= -3
    assert max(noisy.max(), clean.max()) <= 3
    middle = np.abs(clean) < 0.5
    expected = 6 * np.sqrt(0.5 / 100 + 0.05**2)
    assert float((noisy - clean)[middle].std()) == pytest.approx(expected, rel=0.05)


def test_patches_of_a_micrograph_are_all_on_one_side(tmp_path):
    convert(request(folder_of(tmp_path / "in", 6), tmp_path / "s", test_split=0.3, seed=2))
    with open_store(tmp_path / "s") as store:
        sides = {split: {store.micrograph_of(i, split) for i in range(store.count(split))} for split in store.splits}
        assert (len(sides["train"]), len(sides["test"])) == (4, 2)
        assert not sides["train"] & sides["test"]
        assert all(store.manifest.micrographs[i].split == split for split, side in sides.items() for i in side)


def test_the_split_is_a_pure_function_and_leaves_both_sides_something():
    assert pick_test_micrographs(100, 0.1, 7) == pick_test_micrographs(100, 0.1, 7)
    assert pick_test_micrographs(100, 0.1, 7) != pick_test_micrographs(100, 0.1, 8)
    sizes = {(n, f): len(pick_test_micrographs(n, f, 0)) for n in (1, 2, 5, 100) for f in (0.0, 0.1, 0.99, 1.0)}
    assert [sizes[n, 0.0] for n in (1, 2, 5, 100)] == [0, 0, 0, 0]
    assert [sizes[n, 0.1] for n in (1, 2, 5, 100)] == [0, 1, 1, 10]
    assert [sizes[n, 0.99] for n in (1, 2, 5, 100)] == [0, 1, 4, 99]
    assert [sizes[n, 1.0] for n in (1, 2, 5, 100)] == [1, 2, 5, 100]
