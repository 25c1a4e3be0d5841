"""Stores that are damaged, incomplete, or built to harm."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from faults.bench import CONVERT
from faults.soundness import digests
from faults.table import fault
from faults.trial import Trial

_TRAIN = ("--save", "--epochs", "1", "--max-batches", "1", "--checkpoint-dir", "out")


def _copy(trial: Trial) -> Path:
    return Path(shutil.copytree(trial.bench.store, trial.inputs / "store"))


def _train(*more: str, store: str = "in/store") -> list[str]:
    return ["train", store, *_TRAIN, *more]


def _refused(trial: Trial, says: str | tuple[str, ...], *, store: str = "in/store", inspect: bool = True) -> None:
    """Check that train refuses the store, keeps no checkpoint, and that inspect says it quickly."""
    trial.fault(*_train(store=store), code=4, says=says)
    kept = list(trial.out.rglob("epoch_*"))
    trial.check(not kept, "no checkpoint was made of it", f"checkpoints: {kept}")
    if inspect:
        trial.quick(trial.run("inspect", store, code=1))


@fault
def store_flipped(trial: Trial) -> None:
    """One flipped bit in a store: inspect --verify finds it."""
    path = _copy(trial) / "noisy_train.bin"
    payload = bytearray(path.read_bytes())
    payload[12345] ^= 1
    path.write_bytes(payload)
    done = trial.fault("inspect", "in/store", "--verify", code=1)
    name = "mic_0"
    found = [
        line for line in (done.stdout + done.stderr).splitlines() if "checksum" in line.lower() or "crc" in line.lower()
    ]
    trial.check(any(name in line for line in found), "the micrograph is named", f"not named: {done.stdout}")
    trial.seen = found[0].strip() if found else trial.seen


@fault
def store_bin_missing(trial: Trial) -> None:
    """A bin of the store is missing."""
    (_copy(trial) / "clean_train.bin").unlink()
    _refused(trial, "clean_train.bin")


@fault
def store_bin_cut(trial: Trial) -> None:
    """A bin of the store is cut in the middle of a patch."""
    path = _copy(trial) / "noisy_train.bin"
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size - 1000)
    _refused(trial, "noisy_train.bin")


@fault
def store_counts_differ(trial: Trial) -> None:
    """Bare bins with more noisy than clean patches."""
    folder = _copy(trial)
    (folder / "dataset.json").unlink()
    path = folder / "clean_train.bin"
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size - 5 * 64 * 64 * 4)
    trial.fault(*_train("--patch-size", "64"), code=4, says=("noisy", "clean patches"))
    kept = list(trial.out.rglob("epoch_*"))
    trial.check(not kept, "no checkpoint was made of it", f"checkpoints: {kept}")


@fault
def manifest_cut(trial: Trial) -> None:
    """The manifest of the store is cut."""
    path = _copy(trial) / "dataset.json"
    path.write_bytes(path.read_bytes()[:-300])
    _refused(trial, "dataset.json")


@fault
def manifest_bomb(trial: Trial) -> None:
    """A manifest that is nested a million times."""
    (_copy(trial) / "dataset.json").write_text('{"version": ' + "[" * 1_000_000 + "]" * 1_000_000 + "}")
    _refused(trial, "dataset.json")


@fault
def manifest_lies(trial: Trial) -> None:
    """A manifest that claims 2^40 patches."""
    path = _copy(trial) / "dataset.json"
    record = json.loads(path.read_bytes())
    record["counts"]["train"] = 2**40
    path.write_text(json.dumps(record))
    _refused(trial, "dataset.json")


@fault
def manifest_huge_number(trial: Trial) -> None:
    """A manifest with a number of 5,000 digits and a patch of 10^300 pixels."""
    path = _copy(trial) / "dataset.json"
    record = json.loads(path.read_bytes())
    record["patch_shape"] = [10**300, 10**300]
    text = json.dumps(record).replace('"seed": 0', '"seed": ' + "9" * 5000)
    path.write_text(text)
    _refused(trial, "dataset.json")


@fault
def manifest_interrupted(trial: Trial) -> None:
    """A convert that was killed before the manifest was written: the store says what to do."""
    import signal

    from faults.signals import convert_words, interrupted

    trial.add()
    ready = lambda: any(trial.out.glob(".noisy_train*"))  # noqa: E731
    interrupted(trial, convert_words(), signal.SIGKILL, ready)
    trial.fault("train", "out", *_TRAIN[:-2], "--checkpoint-dir", "models", code=4, says="out")
    trial.run(*convert_words())
    trial.same_files(trial.out, trial.bench.store, "*.bin", "the store's bins")


@fault
def nan_patch(trial: Trial) -> None:
    """A NaN pixel in a store (bare bins, no checksum): training ends before a weight is spoilt."""
    folder = _copy(trial)
    (folder / "dataset.json").unlink()
    pixels = np.memmap(folder / "noisy_train.bin", "<f4", "r+")
    pixels[5 * 64 * 64 + 7] = np.nan
    del pixels
    words = ["train", "in/store", "--save", "--epochs", "2", "--patch-size", "64", "--checkpoint-dir", "out"]
    trial.fault(*words, code=6, says=("not finite", "patch"))
    _finite_checkpoints(trial)


@fault
def diverging(trial: Trial) -> None:
    """A learning rate that makes training diverge after a good epoch: the good checkpoint stays."""
    words = ["train", str(trial.bench.store), "--save", "--checkpoint-dir", "out", "--max-batches", "8"]
    trial.run(*words, "--epochs", "1")
    kept = digests(trial.out, "epoch_0001/*")
    words = [*words, "--epochs", "3", "--lr", "1e30"]
    trial.fault(*words, "--init", "out/cryo_cnn", "--overwrite", code=6, says="diverged")
    trial.check(digests(trial.out, "epoch_0001/*") == kept, "the good checkpoint stays as it was", "it was changed")
    _finite_checkpoints(trial)


def _finite_checkpoints(trial: Trial) -> None:
    bad = [path.name for path in trial.out.rglob("conv*.bin") if not np.isfinite(np.fromfile(path, "<f4")).all()]
    trial.check(not bad, "no weight that is not finite on the disk", f"not finite: {bad}")


def _hdf5(trial: Trial) -> Path:
    trial.run("convert", str(trial.bench.micrographs), "-o", "store.h5", "--format", "hdf5", *CONVERT)
    return Path(shutil.move(trial.folder / "store.h5", trial.inputs / "store.h5"))


@fault
def hdf5_external_link(trial: Trial) -> None:
    """An HDF5 store whose patches are an external link to another file."""
    import h5py

    path = _hdf5(trial)
    shutil.copy(path, trial.inputs / "other.h5")
    with h5py.File(path, "r+") as file:
        del file["train/noisy"]
        file["train/noisy"] = h5py.ExternalLink("other.h5", "/train/noisy")
    trial.remember_inputs()
    _refused(trial, "link to elsewhere", store="in/store.h5")


@fault
def hdf5_external_storage(trial: Trial) -> None:
    """An HDF5 store whose patches are the bytes of /etc/passwd (external storage)."""
    import h5py

    path = _hdf5(trial)
    with h5py.File(path, "r+") as file:
        shape = file["train/noisy"].shape
        del file["train/noisy"]
        file.create_dataset("train/noisy", shape, "<f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
    trial.remember_inputs()
    _refused(trial, "train/noisy", store="in/store.h5")


@fault
def hdf5_unallocated(trial: Trial) -> None:
    """An HDF5 store of 1 PB that was never written, in a few kilobytes."""
    import h5py

    path = _hdf5(trial)
    with h5py.File(path, "r+") as file:
        for side in ("noisy", "clean"):
            del file[f"train/{side}"]
            file.create_dataset(f"train/{side}", (2**36, 64, 64), "<f4", chunks=(1, 64, 64))
    trial.remember_inputs()
    _refused(trial, "train/noisy", store="in/store.h5")


@fault
def hdf5_cut(trial: Trial) -> None:
    """An HDF5 store that is cut in half."""
    path = _hdf5(trial)
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size // 2)
    trial.remember_inputs()
    _refused(trial, "store.h5", store="in/store.h5")


@fault
def hdf5_text(trial: Trial) -> None:
    """A text named .h5."""
    (trial.inputs / "store.h5").write_text("not a store\n" * 100)
    _refused(trial, "store.h5", store="in/store.h5")


@fault
def hdf5_killed(trial: Trial) -> None:
    """Kill -9 while writing an HDF5 store, then the same command again."""
    import signal

    from faults.signals import interrupted

    trial.add()
    words = ["convert", "in", "-o", "out", "--format", "hdf5", *CONVERT]
    done = interrupted(trial, words, signal.SIGKILL, lambda: _bytes(trial) > 1_000_000)
    trial.judge(done, code=-9)
    trial.run(*words)
    trial.run("inspect", "out", "--verify")
    trial.check((trial.out / "dataset.h5").exists() or any(trial.out.glob("*.h5")), "store complete", "no store")
    trial.no_leftovers()


def _bytes(trial: Trial) -> int:
    """Give the size of what is written under hidden names so far."""
    return sum(path.stat().st_size for path in trial.out.glob(".*h5*"))


@fault
def other_store_in_the_way(trial: Trial) -> None:
    """The output holds a finished store of other settings."""
    trial.add()
    shutil.copytree(trial.bench.store, trial.out)
    words = ["convert", "in", "-o", "out", "--patch-size", "128", "--stride", "64"]
    trial.fault(*words, code=2, says=("out", "--overwrite"))
    trial.same_files(trial.out, trial.bench.store, "*", "the store there")
