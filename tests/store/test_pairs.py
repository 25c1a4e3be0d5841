from __future__ import annotations

import os
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

from cryoplug.errors import (
    FormatError,
    MissingInputError,
    OutputBusyError,
    PairingError,
    ShapeError,
    StorageError,
    UsageError,
)
from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.manifest_reader import manifest_from_json
from cryoplug.store.pairs import create_store, finished_manifest, open_store
from warm_start import WarmStart

SIDE = 16
FORMATS = ("bin", "hdf5")


def head(dtype: str = "float32", **changes) -> Manifest:
    fields = {"patch_shape": (SIDE, SIDE), "pairs": "noise", "normalize": "none", "seed": 0, "stride": 8}
    return Manifest(dtype=dtype, **{**fields, **changes})


def entry(index: int, split: str = "train") -> MicrographEntry:
    return MicrographEntry(f"m{index}.mrc", split, (64, 64), 1.0, {"kind": "none"}, index=index)


def patch(number: int, side: int) -> np.ndarray:
    return np.random.default_rng([number, side]).random((SIDE, SIDE), dtype=np.float32)


def write_micrograph(writer, index: int, split: str = "train", patches: int = 3) -> None:
    for k in range(patches):
        number = 100 * index + k
        writer.append(split, patch(number, 0), patch(number, 1), (8 * k, 0))
    writer.acknowledge(entry(index, split))


def write_store(path: Path, format: str = "bin", dtype: str = "float32", **options) -> Manifest:
    with create_store(path, head(dtype), format, **options) as writer:
        write_micrograph(writer, 0)
        write_micrograph(writer, 1, "test", 2)
        write_micrograph(writer, 2)
        return writer.finish()


def read_all(store, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    n = store.count(split)
    noisy, clean = (np.empty((n, *store.patch_shape), np.float32) for _ in range(2))
    store.read(range(n), noisy, clean, split=split)
    return noisy, clean


def visible(folder: Path) -> set[str]:
    return {item.name for item in folder.iterdir() if not item.name.endswith(".cryoplug-partial")}


@pytest.mark.parametrize("format", FORMATS)
def test_each_patch_knows_its_micrograph_and_window(tmp_path, format):
    write_store(tmp_path, format)
    with open_store(tmp_path) as store:
        assert [store.micrograph_of(i) for i in range(6)] == [0, 0, 0, 2, 2, 2]
        assert store.describe(4) == "patch 4 (micrograph m2.mrc, y 8, x 0)"
        assert store.micrograph_of(1, "test") == 1


def test_bins_are_bare_payload_that_memmap_reads(tmp_path):
    write_store(tmp_path)
    bins = np.memmap(tmp_path / "noisy_train.bin", "<f4", "r").reshape(-1, SIDE, SIDE)
    np.testing.assert_array_equal(bins[4], patch(201, 0))
    assert visible(tmp_path) == {
        "dataset.json", "noisy_train.bin", "clean_train.bin", "noisy_test.bin", "clean_test.bin"
    }  # fmt: skip
    assert visible(tmp_path) == {item.name for item in tmp_path.iterdir()}


def test_hdf5_is_readable_by_h5py_alone(tmp_path):
    write_store(tmp_path / "x.h5", "hdf5")
    assert [item.name for item in tmp_path.iterdir()] == ["x.h5"]
    with h5py.File(tmp_path / "x.h5") as file:
        np.testing.assert_array_equal(file["train/clean"][5], patch(202, 1))
        assert manifest_from_json(file.attrs["manifest"]).counts == {"train": 6, "test": 2}


def test_hdf5_manifest_may_be_longer_than_an_object_header(tmp_path):
    with create_store(tmp_path, head(request={"note": "x" * 3_000_000}), "hdf5") as writer:
        write_micrograph(writer, 0)
        writer.finish()
    with open_store(tmp_path) as store:
        assert len(store.manifest.request["note"]) == 3_000_000


@pytest.mark.parametrize("format", FORMATS)
def test_both_formats_have_the_same_fingerprint(tmp_path, format):
    assert write_store(tmp_path / "a", format).fingerprint() == write_store(tmp_path / "b").fingerprint()


@pytest.mark.parametrize("format", FORMATS)
def test_an_unfinished_store_has_no_final_name_and_says_what_to_do(tmp_path, format):
    with create_store(tmp_path / "s", head(), format) as writer:
        write_micrograph(writer, 0)
    assert visible(tmp_path / "s") == set()
    with pytest.raises(FormatError, match=r"unfinished store.*run the same convert command again"):
        open_store(tmp_path / "s")


def test_an_interrupted_bin_store_goes_on_after_the_last_acknowledged_micrograph(tmp_path):
    with create_store(tmp_path / "s", head()) as writer:
        write_micrograph(writer, 0)
        writer.append("test", patch(900, 0), patch(900, 1), (0, 0))
    with open(tmp_path / "s" / ".dataset.json.cryoplug-partial", "ab") as journal:
        journal.write(b'{"entry": {"name": "torn')
    with create_store(tmp_path / "s", head()) as writer:
        assert [item.name for item in writer.acknowledged] == ["m0.mrc"]
        write_micrograph(writer, 1, "test", 2)
    with create_store(tmp_path / "s", head()) as writer:
        assert [item.name for item in writer.acknowledged] == ["m0.mrc", "m1.mrc"]
        write_micrograph(writer, 2)
        writer.finish()
    write_store(tmp_path / "t")
    for name in visible(tmp_path / "t"):
        assert (tmp_path / "s" / name).read_bytes() == (tmp_path / "t" / name).read_bytes()


@pytest.mark.parametrize("damage", ["other head", "short bin", "broken journal"])
def test_an_interrupted_store_that_does_not_fit_starts_again(tmp_path, damage):
    with create_store(tmp_path, head()) as writer:
        write_micrograph(writer, 7)
    if damage == "short bin":
        os.truncate(tmp_path / ".clean_train.bin.cryoplug-partial", 5)
    if damage == "broken journal":
        (tmp_path / ".dataset.json.cryoplug-partial").write_bytes(b"\x00\n[]\n")
    with create_store(tmp_path, head(seed=1 if damage == "other head" else 0)) as writer:
        assert writer.acknowledged == ()
        write_micrograph(writer, 0)
        assert writer.finish().counts["train"] == 3
    assert visible(tmp_path) == {item.name for item in tmp_path.iterdir()}


KILLED_WHILE_RENAMING = """
import os, pathlib, sys
import numpy as np
from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.pairs import create_store

folder, left = pathlib.Path(sys.argv[1]), int(sys.argv[2])
for owner, name in ((pathlib.Path, "replace"), (pathlib.Path, "unlink"), (os, "replace")):
    def patched(*arguments, original=getattr(owner, name), **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return original(*arguments, **options)
    setattr(owner, name, patched)
head = Manifest((4, 4), "float32", "noise", "none", 0, 2)
with create_store(folder, head, overwrite=True) as writer:
    for i, split in enumerate(("train", "test", "train")):
        for k in range(2):
            writer.append(split, np.full((4, 4), 10 * i + k), np.full((4, 4), -i), (k, 0))
        writer.acknowledge(MicrographEntry(f"m{i}.mrc", split, (8, 8), 1.0, {"kind": "none"}, index=i))
    writer.finish()
"""


def run_and_kill(warm_start: WarmStart, folder: Path, step: int) -> bool:
    child = warm_start.start(folder, step, program=KILLED_WHILE_RENAMING)
    assert child.wait(timeout=60) in (0, -9), child.communicate()
    return child.returncode == 0


@pytest.mark.parametrize("old", [False, True])
def test_killed_at_any_rename_the_store_is_old_or_new_or_can_be_finished(tmp_path, warm_start, old):
    assert run_and_kill(warm_start, tmp_path / "reference", 10_000)
    reference = finished_manifest(tmp_path / "reference", "bin")
    survived, step = False, 0
    while not survived:
        folder = tmp_path / f"s{step}"
        if old:
            with create_store(folder, head(seed=9)) as writer:
                write_micrograph(writer, 5)
                before = writer.finish()
        survived = run_and_kill(warm_start, folder, step)
        try:
            with open_store(folder) as store:
                assert store.manifest in ([reference, before] if old else [reference])
                assert store.verify() == []
        except FormatError as error:
            assert "unfinished store" in str(error) or "no store here" in str(error)
        finished = finished_manifest(folder, "bin")
        assert finished in ([None, reference, before] if old else [None, reference])
        if finished is not None:
            with open_store(folder) as store:
                assert store.verify() == []
        step += 1
    assert step > 5


@pytest.mark.parametrize("format", FORMATS)
def test_a_finished_store_is_replaced_only_when_asked(tmp_path, format):
    write_store(tmp_path, format)
    with pytest.raises(UsageError, match="exists already; give --overwrite"):
        create_store(tmp_path, head(), format)
    with create_store(tmp_path, head(), format, overwrite=True) as writer:
        write_micrograph(writer, 4)
        with open_store(tmp_path) as old:
            assert old.count() == 6
        writer.finish()
    with open_store(tmp_path) as store:
        assert (store.count(), store.count("test")) == (3, 0)
    assert not (tmp_path / "noisy_test.bin").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_a_second_writer_is_refused_and_the_first_goes_on(tmp_path, format):
    with create_store(tmp_path, head(), format) as writer:
        write_micrograph(writer, 0)
        with pytest.raises(OutputBusyError, match=f"in use by process {os.getpid()}"):
            create_store(tmp_path, head(), format)
        writer.finish()
    with open_store(tmp_path) as store:
        assert store.verify() == []


def bare(folder: Path, **sizes: int) -> Path:
    for name, size in sizes.items():
        (folder / f"{name}.bin").write_bytes(np.arange(size // 4 + 1, dtype="<f4").tobytes()[:size])
    return folder


PATCH_BYTES = 4 * SIDE * SIDE


@pytest.mark.parametrize("names", [("noisy_train", "clean_train"), ("train_input", "train_target")])
def test_bare_bins_of_either_spelling_open_with_a_patch_size(tmp_path, names):
    bare(tmp_path, **dict.fromkeys(names, 3 * PATCH_BYTES))
    for path in (tmp_path, tmp_path / f"{names[0]}.bin"):
        with open_store(path, patch_size=SIDE) as store:
            assert (store.manifest, store.count(), store.count("test")) == (None, 3, 0)
            assert store.micrograph_of(0) is None
            assert store.describe(2) == "patch 2 of train"
            assert read_all(store)[1][2, 0, 1] == 2 * SIDE * SIDE + 1


def test_the_interleaved_bin_gives_input_then_target(tmp_path):
    pairs = np.random.default_rng(0).random((4, 2, 8, 12), dtype=np.float32)
    (tmp_path / "train_n2n.bin").write_bytes(np.array([4, 8, 12, 1], "<i4").tobytes() + pairs.tobytes())
    with open_store(tmp_path) as store:
        assert store.patch_shape == (8, 12)
        np.testing.assert_array_equal(np.stack(read_all(store), axis=1), pairs)


@pytest.mark.parametrize(
    ("header", "extra", "message"),
    [
        ([4, 8, 12, 2], 0, "channels 2; allowed: positive sizes and 1 channel"),
        ([-1, 8, 12, 1], 0, "n -1"),
        ([4, 8, 12, 1], -4, "the header says 4 pairs of 8x12"),
        ([2**31 - 1, 2**31 - 1, 2**31 - 1, 1], 0, "the header says 2147483647 pairs"),
    ],
)
def test_an_interleaved_bin_whose_header_lies_is_refused(tmp_path, header, extra, message):
    payload = np.array(header, "<i4").tobytes() + bytes(4 * 2 * 8 * 12 * 4 + extra)
    (tmp_path / "train_n2n.bin").write_bytes(payload)
    with pytest.raises(FormatError, match=message):
        open_store(tmp_path)


def test_unequal_counts_are_named(tmp_path):
    bare(tmp_path, noisy_train=5 * PATCH_BYTES, clean_train=2 * PATCH_BYTES)
    with pytest.raises(PairingError, match="5 noisy but 2 clean"):
        open_store(tmp_path, patch_size=SIDE)


def test_a_size_that_is_no_whole_number_of_patches_says_so(tmp_path):
    bare(tmp_path, noisy_train=3 * PATCH_BYTES + 20, clean_train=3 * PATCH_BYTES)
    with pytest.raises(FormatError, match=r"is 3\.02 patches of 16x16 float32 \(1024 bytes each\); give --patch-size"):
        open_store(tmp_path, patch_size=SIDE)


def test_missing_or_empty_bins_are_named(tmp_path):
    with pytest.raises(MissingInputError, match="nothing: not there"):
        open_store(tmp_path / "nothing")
    with pytest.raises(FormatError, match="no store here"):
        open_store(tmp_path)
    bare(tmp_path, noisy_train=PATCH_BYTES)
    with pytest.raises(MissingInputError, match=r"clean_train\.bin: not there"):
        open_store(tmp_path, patch_size=SIDE)
    bare(tmp_path, noisy_train=0, clean_train=0)
    with pytest.raises(FormatError, match=r"noisy_train\.bin: is empty"):
        open_store(tmp_path, patch_size=SIDE)


def test_a_bin_that_contradicts_the_manifest_is_refused(tmp_path):
    write_store(tmp_path)
    for name in ("noisy_train.bin", "clean_train.bin"):
        os.truncate(tmp_path / name, 4 * PATCH_BYTES)
    with pytest.raises(FormatError, match="4 patches but the manifest says 6"):
        open_store(tmp_path)


@pytest.mark.parametrize("format", FORMATS)
def test_verify_names_the_micrograph_whose_bytes_changed(tmp_path, format):
    write_store(tmp_path, format)
    with open_store(tmp_path) as store:
        target = store._runs["train"][1]
        with open(target.path, "r+b") as stream:
            stream.seek(int(target.offsets[4]) + 3)
            stream.write(b"\x42")
        (sentence,) = store.verify()
        assert "m2.mrc" in sentence


def test_a_bin_cut_while_open_is_an_error_and_no_signal(tmp_path):
    write_store(tmp_path)
    with open_store(tmp_path) as store:
        os.truncate(tmp_path / "noisy_train.bin", PATCH_BYTES)
        with pytest.raises(FormatError, match="ends before patch"):
            read_all(store)


def test_wrong_buffers_and_indices_are_refused(tmp_path):
    write_store(tmp_path)
    with open_store(tmp_path) as store:
        good = np.empty((1, SIDE, SIDE), np.float32)
        for bad in (good[:, :8], good.astype(np.float64), np.empty((1, SIDE, 2 * SIDE), np.float32)[..., ::2]):
            with pytest.raises(ShapeError, match="allowed: C-contiguous float32"):
                store.read([0], good, bad)
        for index in (-1, 6):
            with pytest.raises(IndexError, match="allowed: 0 to 5"):
                store.read([index], good, good)
    with create_store(tmp_path / "t", head()) as writer, pytest.raises(ShapeError, match="patch of shape"):
        writer.append("train", np.zeros((3, 3)), np.zeros((3, 3)), (0, 0))


@pytest.mark.parametrize("format", FORMATS)
def test_threads_read_the_same_store_at_once(tmp_path, format):
    write_store(tmp_path, format, "float16")
    with open_store(tmp_path) as store:
        expected = read_all(store)
        results: list[bool] = []

        def work() -> None:
            for _ in range(50):
                results.append(all(map(np.array_equal, read_all(store), expected)))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [True] * 200


def broken_hdf5(path: Path, kind: str) -> None:
    data = np.zeros((2, SIDE, SIDE), np.float32)
    if kind == "text":
        path.write_text("not hdf5")
        return
    with h5py.File(path, "w") as file:
        group = file.create_group("train")
        group.create_dataset("clean", data=data)
        if kind == "compressed":
            group.create_dataset("noisy", data=data, chunks=(1, SIDE, SIDE), compression="gzip")
        elif kind == "chunked":
            group.create_dataset("noisy", data=data, chunks=(2, SIDE, 8))
        elif kind == "external":
            (path.parent / "elsewhere.raw").write_bytes(data.tobytes())
            group.create_dataset("noisy", data.shape, "<f4", external=[("elsewhere.raw", 0, h5py.h5f.UNLIMITED)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout(data.shape, "<f4")
            group.create_virtual_dataset("noisy", layout)
        elif kind == "link":
            group["noisy"] = h5py.ExternalLink("other.h5", "/x")
        elif kind == "big-endian":
            group.create_dataset("noisy", data=data.astype(">f4"))
        elif kind == "unwritten":
            group.create_dataset("noisy", data.shape, "<f4", chunks=(1, SIDE, SIDE))
        elif kind == "fewer":
            group.create_dataset("noisy", data=data[:1])
        elif kind == "flat":
            group.create_dataset("noisy", data=data[0])
    if kind == "cut":
        os.truncate(path, 2000)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", "not a readable HDF5 file"),
        ("cut", "not a readable HDF5 file"),
        ("alone", "only one of noisy and clean"),
        ("compressed", "compressed"),
        ("chunked", r"allowed: contiguous or \(1, 16, 16\)"),
        ("external", "in another file"),
        ("virtual", "in another file"),
        ("link", "link to elsewhere|only one of noisy and clean"),
        ("big-endian", "allowed: little-endian float32, float16"),
        ("unwritten", "no pixels for patch 0"),
        ("fewer", "1 noisy but 2 clean"),
        ("flat", r"shape \(n, y, x\)"),
    ],
)
def test_a_foreign_or_damaged_hdf5_is_refused_with_the_reason(tmp_path, kind, message):
    path = tmp_path / "x.h5"
    broken_hdf5(path, kind)
    with pytest.raises((FormatError, PairingError), match=message):
        open_store(path)


def test_a_contiguous_hdf5_without_a_manifest_opens(tmp_path):
    data = np.random.default_rng(1).random((2, 2, SIDE, SIDE), dtype=np.float32)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["train/noisy"], file["train/clean"] = data
    with open_store(tmp_path / "x.h5") as store:
        assert store.manifest is None
        np.testing.assert_array_equal(np.stack(read_all(store)), data)


def test_hdf5_never_meets_a_full_disk(tmp_path, monkeypatch):
    real = os.statvfs(tmp_path)
    with create_store(tmp_path, head(), "hdf5") as writer:
        write_micrograph(writer, 0)
        monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*real[:4], 0, *real[5:10])))
        with pytest.raises(StorageError, match="0 bytes free"):
            write_micrograph(writer, 1)
    assert visible(tmp_path) == set()


def test_output_paths_that_do_not_suit_the_format_are_refused(tmp_path):
    with pytest.raises(UsageError, match="give a folder, or --format hdf5"):
        create_store(tmp_path / "x.h5", head(), "bin")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="this is a file; -o names the folder to write into"):
        create_store(tmp_path / "file", head())
    with pytest.raises(UsageError, match="format 'zarr'; allowed: bin, hdf5"):
        create_store(tmp_path / "s", head(), "zarr")
