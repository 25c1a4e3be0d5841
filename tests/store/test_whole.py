"""Stores of whole micrographs: every pixel once, any window of it, both formats, killed and continued."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from cryoplug.errors import FormatError, ShapeError, UsageError
from cryoplug.store import pairs
from cryoplug.store.grid import Crop, CropGrid
from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.pairs import FORMATS, create_store, open_store

SIDE = 8
SHAPES = [(20, 31), (8, 9), (17, 16), (8, 8)]
SPLIT_OF = ["train", "test", "train", "train"]


def head(dtype: str = "float32") -> Manifest:
    return Manifest((SIDE, SIDE), dtype, "halves", "zscore", 0, SIDE, whole=True)


def micrograph(index: int, side: int) -> np.ndarray:
    return np.random.default_rng([index, side]).normal(size=SHAPES[index]).astype("f4")


def entry(index: int) -> MicrographEntry:
    return MicrographEntry(f"m{index}.mrc", SPLIT_OF[index], SHAPES[index], 1.0, {"kind": "zscore"}, index=index)


def write_micrograph(writer, index: int, rows: int = 5) -> None:
    noisy, clean = (micrograph(index, side) for side in range(2))
    for first in range(0, len(noisy), rows):
        writer.append_rows(SPLIT_OF[index], noisy[first : first + rows], clean[first : first + rows], SHAPES[index])


def write_store(path: Path, format: str = "bin", dtype: str = "float32", rows: int = 5) -> Manifest:
    with create_store(path, head(dtype), format) as writer:
        for index in range(len(SHAPES)):
            write_micrograph(writer, index, rows)
            writer.acknowledge(entry(index))
        return writer.finish()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("band_pixels", [1, 40, 1 << 18])
def test_any_window_of_any_micrograph_is_read_in_either_dtype(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, dtype: str, band_pixels: int
) -> None:
    monkeypatch.setattr(pairs, "_BAND_PIXELS", band_pixels)
    written = write_store(tmp_path / "s", format, dtype)
    rng = np.random.default_rng(3)
    with open_store(tmp_path / "s") as store:
        assert store.manifest == written and store.whole
        assert (store.images("train"), store.images("test")) == (3, 1)
        assert store.verify() == []
        for _ in range(60):
            image = int(rng.integers(3))
            index = [0, 2, 3][image]
            rows, columns = store.image_shape(image)
            assert (rows, columns) == SHAPES[index]
            height, width = int(rng.integers(1, rows + 1)), int(rng.integers(1, columns + 1))
            y, x = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
            for side in range(2):
                out = np.full((height, width), np.nan, rng.choice(["f4", dtype]))
                store.read_crop(side, Crop(image, y, x), out)
                expected = micrograph(index, side).astype(dtype)[y : y + height, x : x + width]
                assert np.array_equal(out, expected)
        with pytest.raises(IndexError, match="leaves its image of 20x31"):
            store.read_crop(0, Crop(0, 13, 0), np.empty((8, 8), np.float32))


def test_the_grid_of_crops_covers_each_micrograph_without_overlap() -> None:
    shapes = [(20, 31), (8, 9), (40, 16)]
    grid = CropGrid(shapes, (8, 7))
    crops = [grid[index] for index in range(len(grid))]
    assert len(crops) == 2 * 4 + 1 + 5 * 2
    seen = [np.zeros(shape, int) for shape in shapes]
    for image, y, x in crops:
        window = seen[image][y : y + 8, x : x + 7]
        assert window.shape == (8, 7)
        window += 1
    assert all(image.max() == 1 for image in seen)
    assert [image.sum() for image in seen] == [8 * 56, 56, 10 * 56]
    # What is left over is shared by both borders.
    assert not seen[0][:2].any() and not seen[0][-2:].any() and seen[0][2:-2].any(axis=1).all()


def test_pairs_are_the_crops_of_the_grid_and_know_their_micrograph(tmp_path: Path) -> None:
    write_store(tmp_path)
    with open_store(tmp_path) as store:
        assert (store.count(), store.count("test")) == (2 * 3 + 2 * 2 + 1, 1)
        assert [store.micrograph_of(index) for index in range(11)] == [0] * 6 + [2] * 4 + [3]
        assert store.describe(1) == "patch 1 (micrograph m0.mrc, y 2, x 11)"
        noisy, clean = np.empty((2, SIDE, SIDE), "f4"), np.empty((2, SIDE, SIDE), "f4")
        store.read([1, 10], noisy, clean)
        assert np.array_equal(clean[0], micrograph(0, 1)[2:10, 11:19])
        assert np.array_equal(noisy[1], micrograph(3, 0))
    with open_store(tmp_path, crop_size=4) as store:
        assert (store.patch_shape, store.count()) == ((4, 4), 5 * 7 + 4 * 4 + 4)
    with pytest.raises(UsageError, match=r"--crop-size is 9; allowed with the micrographs of .*: 1 to 8"):
        open_store(tmp_path, crop_size=9)


def test_cutting_anew_is_opening_with_another_size(tmp_path: Path) -> None:
    write_store(tmp_path)
    with open_store(tmp_path) as store, open_store(tmp_path, crop_size=4) as other:
        store.cut_anew(4)
        assert store.patch_shape == other.patch_shape and store.count() == other.count()
        found, wanted = (np.empty((2, store.count(), 4, 4), np.float32) for _ in range(2))
        everything = list(range(store.count()))
        store.read(everything, *found)
        other.read(everything, *wanted)
        np.testing.assert_array_equal(found, wanted)
        with pytest.raises(UsageError, match="--crop-size is 9; allowed"):
            store.cut_anew(9)


def test_bins_are_the_micrographs_one_after_another(tmp_path: Path) -> None:
    write_store(tmp_path)
    expected = np.concatenate([micrograph(index, 1).ravel() for index in (0, 2, 3)])
    assert np.array_equal(np.fromfile(tmp_path / "clean_train.bin", "<f4"), expected)
    record = json.loads((tmp_path / "dataset.json").read_text())
    assert (record["version"], record["whole"], record["counts"]) == (2, True, {"train": 3, "test": 1})
    assert record["windows"] == {"train": [[0, 0, 0], [2, 0, 0], [3, 0, 0]], "test": [[1, 0, 0]]}


def test_hdf5_is_readable_by_h5py_alone(tmp_path: Path) -> None:
    write_store(tmp_path / "x.h5", "hdf5")
    with h5py.File(tmp_path / "x.h5") as file:
        assert list(file["train/noisy"]) == ["000000", "000001", "000002"]
        assert np.array_equal(file["train/clean/000001"][:], micrograph(2, 1))


@pytest.mark.parametrize("format", FORMATS)
def test_the_result_does_not_depend_on_how_many_rows_come_at_a_time_nor_on_the_format(
    tmp_path: Path, format: str
) -> None:
    first = write_store(tmp_path / "a", format, rows=1)
    assert write_store(tmp_path / "b", "bin", rows=100) == first
    assert first.fingerprint() != dataclasses.replace(first, whole=False).fingerprint()


@pytest.mark.parametrize("format", FORMATS)
def test_an_unreadable_micrograph_is_discarded_as_if_it_had_never_begun(tmp_path: Path, format: str) -> None:
    expected = write_store(tmp_path / "a", format)
    with create_store(tmp_path / "b", head(), format) as writer:
        for index in range(len(SHAPES)):
            writer.append_rows(SPLIT_OF[index], *np.ones((2, 3, SHAPES[index][1]), "f4"), SHAPES[index])
            writer.discard()
            write_micrograph(writer, index)
            writer.acknowledge(entry(index))
        assert writer.finish() == expected
    with open_store(tmp_path / "b") as store:
        assert store.verify() == []


@pytest.mark.parametrize("written", range(5))
def test_a_killed_writer_goes_on_to_the_same_bytes(tmp_path: Path, written: int) -> None:
    write_store(tmp_path / "straight")
    out = tmp_path / "out"
    with create_store(out, head()) as writer:
        for index in range(written):
            write_micrograph(writer, index)
            writer.acknowledge(entry(index))
        if written < len(SHAPES):
            writer.append_rows(SPLIT_OF[written], *np.ones((2, 3, SHAPES[written][1]), "f4"), SHAPES[written])
        # leaving the block without `finish` is what is left of a killed convert
    with create_store(out, head()) as writer:
        assert [item.index for item in writer.acknowledged] == list(range(written))
        for index in range(written, len(SHAPES)):
            write_micrograph(writer, index)
            writer.acknowledge(entry(index))
        writer.finish()
    for item in (tmp_path / "straight").iterdir():
        assert item.read_bytes() == (out / item.name).read_bytes(), item.name


def test_rows_that_do_not_make_the_micrograph_are_refused(tmp_path: Path) -> None:
    with create_store(tmp_path, head()) as writer:
        rows = np.zeros((15, 31), "f4")
        writer.append_rows("train", rows, rows, SHAPES[0])
        with pytest.raises(ShapeError, match=r"15 rows of m0\.mrc, which has 20"):
            writer.acknowledge(entry(0))
        with pytest.raises(ShapeError, match=r"after 15; allowed: rows of one micrograph of \(20, 31\)"):
            writer.append_rows("train", rows, rows, SHAPES[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"whole": False}, "whole is False in version 2"),
        ({"version": 1}, "whole is True in version 1"),
        ({"windows": {"train": [[0, 1, 0], [2, 0, 0], [3, 0, 0]], "test": [[1, 0, 0]]}}, "begins at y 0, x 0"),
        ({"patch_shape": [9, 8]}, "leaves its micrograph"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_store(tmp_path)
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(FormatError, match=message):
        open_store(tmp_path)


def test_bins_of_another_size_and_changed_pixels_are_found(tmp_path: Path) -> None:
    write_store(tmp_path)
    with open(tmp_path / "noisy_train.bin", "r+b") as stream:
        stream.seek(4 * (20 * 31 + 5))
        stream.write(b"\1")
    with open_store(tmp_path) as store:
        assert [text.split(" are not")[0] for text in store.verify()] == [f"{tmp_path}: the patches of m2.mrc"]
    with open(tmp_path / "noisy_train.bin", "ab") as stream:
        stream.write(b"\0" * 4)
    with pytest.raises(FormatError, match=r"bytes but the 3 micrographs of the manifest take"):
        open_store(tmp_path)


def test_an_hdf5_file_that_is_not_what_its_manifest_says_is_refused(tmp_path: Path) -> None:
    for name, harm, message in (
        ("shape", lambda file: file.move("train/noisy/000001", "train/noisy/000009"), "000001 is missing"),
        ("swap", swap, "holds other images than the manifest says|differ in shape"),
        ("manifest", lambda file: file.attrs.__delitem__("manifest"), "whole micrographs without a manifest"),
        ("chunks", rechunk, "allowed: contiguous"),
    ):
        path = tmp_path / f"{name}.h5"
        write_store(path, "hdf5")
        with h5py.File(path, "r+") as file:
            harm(file)
        with pytest.raises(FormatError, match=message):
            open_store(path)


def swap(file: h5py.File) -> None:
    for side in ("noisy", "clean"):
        file.move(f"train/{side}/000000", f"train/{side}/x")
        file.move(f"train/{side}/000001", f"train/{side}/000000")
        file.move(f"train/{side}/x", f"train/{side}/000001")


def rechunk(file: h5py.File) -> None:
    pixels = file["train/noisy/000000"][:]
    del file["train/noisy/000000"]
    file.create_dataset("train/noisy/000000", data=pixels, chunks=(5, 5))
