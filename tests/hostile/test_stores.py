"""Stores whose manifest is a bomb, whose bins are not what they seem, or whose HDF5 leads elsewhere."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cryoplug.store.manifest import Manifest, MicrographEntry
from cryoplug.store.pairs import open_store

SIDE = 8


def manifest(**changes: Any) -> bytes:
    record = Manifest(
        patch_shape=(SIDE, SIDE),
        dtype="float32",
        pairs="noise",
        normalize="none",
        seed=3,
        stride=8,
        counts={"train": 2, "test": 0},
        micrographs=(MicrographEntry("a.mrc", "train", (24, 24), 1.25, {}),),
        windows={"train": ((0, 0, 0), (0, 0, 8)), "test": ()},
    )
    return json.dumps({**json.loads(record.to_json()), **changes}).encode()


def entry(**changes: Any) -> list[dict[str, Any]]:
    return [{**json.loads(manifest())["micrographs"][0], **changes}]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for name in ("noisy_train.bin", "clean_train.bin"):
        np.zeros((2, SIDE, SIDE), "<f4").tofile(tmp_path / name)
    (tmp_path / "dataset.json").write_bytes(manifest())
    with open_store(tmp_path) as opened:
        assert opened.count() == 2
    return tmp_path


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested"),
        (b"[" + b"[],[],[]," * 2_000_000 + b"[]]", "bytes; allowed"),
        (b"[" + b"{}," * 2_000_000 + b"{}]", "4000002 values; allowed"),
        (b" " * (100 << 20), "allowed: up to 8388608"),
        (manifest(seed=10**4000), "seed is 1000"),
        (manifest().replace(b'"seed": 3', b'"seed": ' + b"9" * 100_000), "digits"),
        (manifest(seed=float("nan")), "NaN is not a number"),
        (manifest().replace(b'"seed": 3', b'"seed": 1e999'), "too large"),
        (manifest(seed=1.5), "seed is 1.5; allowed: a whole number"),
        (manifest(seed="3"), "seed is '3'"),
        (manifest().replace(b'"seed": 3', b'"seed": 3, "seed": 4'), "the key 'seed' is there twice"),
        (manifest(micrographs=[None]), "micrographs[0] is None; allowed: an object"),
        (manifest(micrographs=entry(name="../../etc/passwd")), "without '..'"),
        (manifest(micrographs=entry(name="/etc/passwd")), "allowed: a path below the input folder"),
        (manifest(micrographs=entry(name="a\0b")), "micrographs[0].name"),
        (manifest(micrographs=entry(clean_name="x/../../y")), "micrographs[0].clean_name"),
        (manifest(micrographs=entry(shape=[1 << 40, 24])), "from 1 to 131072"),
        (manifest(micrographs=entry(pixel_size_angstrom=10**400)), "a positive number"),
        (manifest(patch_shape=[1 << 31, 1 << 31]), "patch_shape is"),
        (manifest(patch_shape=[-8, 8]), "patch_shape is"),
        (manifest(windows={"train": [[0, 0, 0], [0, 0, 10**30]], "test": []}), "leaves its micrograph"),
        (manifest(counts={"train": 1 << 60, "test": 0}), "but there are 2 windows"),
        (manifest(request=json.loads("[" * 40 + "]" * 40)), "nested more than 16 levels"),
        (manifest(version=json.loads("[" * 15 + "]" * 15)), "manifest version [[[...]]]"),
        (b"\xff\xfe" + bytes(50), "not valid JSON"),
    ],
)
def test_a_manifest_that_is_a_bomb_is_refused(store: Path, refused, payload: bytes, message: str) -> None:
    (store / "dataset.json").write_bytes(payload)
    assert message in refused("store", store)


def test_a_long_manifest_needs_as_many_pixels(store: Path, refused) -> None:
    # 200,000 windows that would all be right: refused for want of pixels on the disk, whatever size the bins claim.
    windows = {"train": [[0, 0, 0]] * 200_000, "test": []}
    (store / "dataset.json").write_bytes(manifest(windows=windows, counts={"train": 200_000, "test": 0}))
    for name in ("noisy_train.bin", "clean_train.bin"):
        os.truncate(store / name, 200_000 * SIDE * SIDE * 4)
    assert "values; allowed with" in refused("store", store)


def test_sparse_bins_take_no_memory(store: Path, refused, reader) -> None:
    for name in ("noisy_train.bin", "clean_train.bin"):
        os.truncate(store / name, SIDE * SIDE * 4 << 34)
    assert "17179869184 patches but the manifest says 2" in refused("store", store, named=store / "noisy_train.bin")
    (store / "dataset.json").unlink()
    outcome = reader("store", store)
    assert outcome.error is None and outcome.work_s < 1 and outcome.bytes < 1e8


@pytest.mark.parametrize("name", ["dataset.json", "noisy_train.bin"])
def test_a_pipe_in_a_store_is_not_waited_for(store: Path, refused, name: str) -> None:
    (store / name).unlink()
    os.mkfifo(store / name)
    refused("store", store)


def pixels(count: int = 2) -> np.ndarray:
    return np.ones((count, SIDE, SIDE), "<f4")


def plain(file: h5py.File, side: str) -> None:
    file.create_dataset(f"train/{side}", data=pixels())


def external_link(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["noisy"] = pixels()
    file["train/noisy"] = h5py.ExternalLink(str(folder / "other.h5"), "/noisy")


def external_group(file: h5py.File, folder: Path) -> None:
    del file["train"]
    os.mkfifo(folder / "pipe")  # whoever follows the link waits here
    file["train"] = h5py.ExternalLink(str(folder / "pipe"), "/train")


def soft_link(file: h5py.File, folder: Path) -> None:
    file["train/noisy"] = h5py.SoftLink("/train/clean")


def soft_loop(file: h5py.File, folder: Path) -> None:
    del file["train"]
    file["train"] = h5py.SoftLink("/train")


def external_storage(file: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(b"secret" * 1000)
    file.create_dataset("train/noisy", (2, SIDE, SIDE), "<f4", external=[(str(folder / "secret"), 0, 512)])


def virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((2, SIDE, SIDE), "<f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "noisy", (2, SIDE, SIDE))
    file["train"].create_virtual_dataset("noisy", layout)


def compressed(file: h5py.File, folder: Path) -> None:
    file.create_dataset("train/noisy", (1 << 31, 1 << 10, 1 << 10), "<f4", chunks=(1, 1024, 1024), compression="gzip")


def unknown_filter(file: h5py.File, folder: Path) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1, SIDE, SIDE))
    properties.set_filter(32099, h5py.h5z.FLAG_OPTIONAL, (1, 2))
    space = h5py.h5s.create_simple((2, SIDE, SIDE))
    h5py.h5d.create(file["train"].id, b"noisy", h5py.h5t.IEEE_F32LE, space, properties)


def huge(file: h5py.File, folder: Path) -> None:
    file.create_dataset("train/noisy", (1 << 40, SIDE, SIDE), "<f4", chunks=(1, SIDE, SIDE))


def huge_contiguous(file: h5py.File, folder: Path) -> None:
    file.create_dataset("train/noisy", (1 << 40, SIDE, SIDE), "<f4")


def great_patches(file: h5py.File, folder: Path) -> None:
    file.create_dataset("train/noisy", (1, 1 << 20, 1 << 20), "<f4")


def objects(file: h5py.File, folder: Path) -> None:
    file.create_dataset("train/noisy", (2, SIDE, SIDE), h5py.string_dtype())


def group_for_dataset(file: h5py.File, folder: Path) -> None:
    file.create_group("train/noisy")


def dataset_for_group(file: h5py.File, folder: Path) -> None:
    del file["train"]
    file["train"] = pixels()


def fixed_manifest(file: h5py.File, folder: Path) -> None:
    plain(file, "noisy")
    file.attrs["manifest"] = np.bytes_(b"{}")


def many_manifests(file: h5py.File, folder: Path) -> None:
    plain(file, "noisy")
    file.attrs["manifest"] = ["{}"] * 1000


def manifest_bomb(file: h5py.File, folder: Path) -> None:
    plain(file, "noisy")
    file.attrs["manifest"] = "[" + "[]," * 1_000_000 + "[]]"


def long_manifest(file: h5py.File, folder: Path) -> None:
    plain(file, "noisy")
    file.attrs["manifest"] = '["' + "x" * (10 << 20) + '"]'


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (external_link, "a link to elsewhere"),
        (external_group, "a link to elsewhere"),
        (soft_link, "a link to elsewhere"),
        (soft_loop, "a link to elsewhere"),
        (external_storage, "in another file"),
        (virtual, "in another file"),
        (compressed, "compressed or filtered"),
        (unknown_filter, "compressed or filtered"),
        (huge, "claims 281474976710656 bytes"),
        (huge_contiguous, "claims 281474976710656 bytes"),
        (great_patches, "allowed: shape (n, y, x)"),
        (objects, "allowed: little-endian"),
        (group_for_dataset, "is not a group of whole micrographs"),
        (dataset_for_group, "not a group"),
        (fixed_manifest, "not one text"),
        (many_manifests, "not one text"),
        (manifest_bomb, "values; allowed"),
        (long_manifest, "bytes; allowed"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_hostile_hdf5_file_is_refused(tmp_path: Path, refused, make: Any, message: str) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        plain(file, "clean")
        make(file, tmp_path)
    assert message in refused("store", path)


def test_a_plain_hdf5_file_of_the_same_maker_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        plain(file, "clean")
        plain(file, "noisy")
    with open_store(path) as store:
        assert store.count() == 2


def with_manifest(path: Path, text: str) -> bytes:
    with h5py.File(path, "w") as file:
        plain(file, "clean")
        plain(file, "noisy")
        file.attrs["manifest"] = text
    return path.read_bytes()


def test_a_store_that_another_program_holds_locked_is_read(tmp_path: Path) -> None:
    # A viewer that has it open, or a disk without locks (errno 524 of some network disks): a store never changes.
    with h5py.File(tmp_path / "a.h5", "w") as file:
        plain(file, "clean")
        plain(file, "noisy")
    with (tmp_path / "a.h5").open("r+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with open_store(tmp_path / "a.h5") as store:
            assert store.count() == 2


def test_a_file_that_libhdf5_reads_for_ever_is_refused(tmp_path: Path, refused) -> None:
    # Found by fuzzing: the length of an object in the global heap wraps around to a step of zero.
    path = tmp_path / "a.h5"
    payload = bytearray(with_manifest(path, manifest().decode()))
    length = payload.index(b"GCOL") + 24
    payload[length : length + 8] = ((1 << 64) - 16).to_bytes(8, "little")
    path.write_bytes(payload)
    assert "SIGPROF" in refused("store", path)


def test_a_manifest_too_long_for_its_store_is_refused_before_it_is_here(tmp_path: Path, refused) -> None:
    path = tmp_path / "a.h5"
    with_manifest(path, '["' + "x" * (60 << 20) + '"]')
    refused("store", path)


def test_a_library_in_the_working_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "h5py.py").write_text("import os; os.mkdir('owned')")
    with_manifest(tmp_path / "a.h5", manifest().decode())
    monkeypatch.chdir(tmp_path)
    with open_store("a.h5") as store:
        assert store.count() == 2
    assert not (tmp_path / "owned").exists()
