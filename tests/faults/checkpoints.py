"""Checkpoints that are damaged, lie, or hold code."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from faults.table import fault
from faults.trial import Trial


class Gadget:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


def _copy(trial: Trial) -> Path:
    """Copy the bench's run and return its epoch folder."""
    shutil.copytree(trial.bench.checkpoint, trial.folder / "model")
    (epoch,) = (trial.folder / "model").glob("epoch_*")
    return epoch


def _refused(trial: Trial, says: str | tuple[str, ...], *, code: int = 4, path: str = "model") -> None:
    """Check that denoise refuses the checkpoint before it works, and that inspect does so quickly."""
    trial.add("mic_0001.mrc")
    trial.fault("denoise", "in", "--checkpoint", path, "-o", "out", code=code, says=says)
    trial.only_results([])
    trial.quick(trial.run("inspect", path, code=1))


@fault
def pickle_as_pth(trial: Trial) -> None:
    """A pickle with code in it, named model.pth."""
    ran = trial.folder / "ran"
    (trial.folder / "model.pth").write_bytes(pickle.dumps({"conv1.weight": Gadget(ran)}))
    _refused(trial, "model.pth", path="model.pth")
    trial.check(not ran.exists(), "its code never ran", "ITS CODE RAN")


@fault
def pickle_as_safetensors(trial: Trial) -> None:
    """A pickle with code in it, named model.safetensors."""
    ran = trial.folder / "ran"
    (_copy(trial) / "model.safetensors").write_bytes(pickle.dumps(Gadget(ran)) * 10)
    _refused(trial, "model.safetensors")
    trial.check(not ran.exists(), "its code never ran", "ITS CODE RAN")


@fault
def pickle_as_resume_state(trial: Trial) -> None:
    """A pickle with code in it in place of the state for going on."""
    ran = trial.folder / "ran"
    shutil.copytree(trial.bench.runs, trial.out)
    (trial.out / "cryo_cnn" / "resume" / "state.safetensors").write_bytes(pickle.dumps(Gadget(ran)))
    from faults.signals import train_words

    trial.fault(*train_words(trial), code=4, says="state.safetensors")
    trial.check(not ran.exists(), "its code never ran", "ITS CODE RAN")
    trial.same_files(trial.out, trial.bench.runs, "epoch_*/model.safetensors", "the kept checkpoint")


def _header(payload: bytes) -> tuple[dict[str, dict[str, list[int]]], bytes]:
    length = int.from_bytes(payload[:8], "little")
    return json.loads(payload[8 : 8 + length]), payload[8 + length :]


@fault
def safetensors_cut(trial: Trial) -> None:
    """A checkpoint whose safetensors file is cut."""
    path = _copy(trial) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-500])
    _refused(trial, "model.safetensors")


@fault
def safetensors_lies(trial: Trial) -> None:
    """A safetensors file whose offsets point beyond its end and over each other."""
    path = _copy(trial) / "model.safetensors"
    header, tensors = _header(path.read_bytes())
    name = next(key for key in header if key != "__metadata__")
    header[name]["data_offsets"] = [0, 2**40]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + tensors)
    _refused(trial, "model.safetensors")


@fault
def safetensors_header_huge(trial: Trial) -> None:
    """A safetensors file that claims a header of 2^62 bytes."""
    path = _copy(trial) / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])
    _refused(trial, "model.safetensors")


@fault
def safetensors_flipped(trial: Trial) -> None:
    """One flipped bit among the weights."""
    path = _copy(trial) / "model.safetensors"
    payload = bytearray(path.read_bytes())
    payload[-100] ^= 1 << 6
    path.write_bytes(payload)
    _refused(trial, "sha256")


@fault
def bin_flipped(trial: Trial) -> None:
    """One flipped bit in a founding weights file."""
    path = _copy(trial) / "conv2_weights.bin"
    payload = bytearray(path.read_bytes())
    payload[1000] ^= 1 << 6
    path.write_bytes(payload)
    _refused(trial, "conv2.weight")


@fault
def bin_missing(trial: Trial) -> None:
    """A founding folder without one of its layers."""
    epoch = _copy(trial)
    for path in epoch.iterdir():
        if not path.name.startswith("conv") or path.name == "conv2_bias.bin":
            path.unlink()
    _refused(trial, "conv2_bias.bin")


@fault
def wrong_channels(trial: Trial) -> None:
    """A founding folder whose second layer has 32 channels in place of 16."""
    epoch = _copy(trial)
    for path in epoch.iterdir():
        if not path.name.startswith("conv"):
            path.unlink()
    np.zeros((32, 16, 3, 3), "<f4").tofile(epoch / "conv2_weights.bin")
    _refused(trial, "conv2_weights.bin")


@fault
def nan_weights(trial: Trial) -> None:
    """A founding folder with a NaN weight."""
    epoch = _copy(trial)
    for path in epoch.iterdir():
        if not path.name.startswith("conv"):
            path.unlink()
    weights = np.fromfile(epoch / "conv2_weights.bin", "<f4")
    weights[5] = np.nan
    weights.tofile(epoch / "conv2_weights.bin")
    _refused(trial, "conv2")


@fault
def checkpoint_json_bomb(trial: Trial) -> None:
    """A checkpoint.json that is nested a million times."""
    (_copy(trial) / "checkpoint.json").write_text("[" * 1_000_000 + "]" * 1_000_000)
    _refused(trial, "checkpoint.json")


@fault
def checkpoint_json_giant(trial: Trial) -> None:
    """A checkpoint.json of 4 GB (sparse)."""
    with (_copy(trial) / "checkpoint.json").open("r+b") as stream:
        stream.truncate(4 << 30)
    _refused(trial, "checkpoint.json")


@fault
def checkpoint_is_loop(trial: Trial) -> None:
    """The checkpoint is a link to itself."""
    (trial.folder / "model").symlink_to("model")
    _refused(trial, "model")


@fault
def checkpoint_missing(trial: Trial) -> None:
    """The checkpoint is not there."""
    trial.add("mic_0001.mrc")
    trial.fault("denoise", "in", "--checkpoint", "model", "-o", "out", code=4, says=("model", "no such folder"))
    trial.only_results([])


@fault
def checkpoint_half_copied(trial: Trial) -> None:
    """A checkpoint folder that is still being copied: checkpoint.json is missing beside the weights."""
    epoch = _copy(trial)
    (epoch / "checkpoint.json").unlink()
    _refused(trial, (epoch.name, "checkpoint.json"))


@fault
def checkpoint_names_plugin(trial: Trial) -> None:
    """A checkpoint of a model that is not installed."""
    path = _copy(trial) / "checkpoint.json"
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({**record, "model": "unet_of_a_plugin"}))
    _refused(trial, "unet_of_a_plugin")


@fault
def python_in_the_folder(trial: Trial) -> None:
    """Python modules named like libraries lie in the working folder: none is run."""
    trial.add("mic_0001.mrc")
    ran = trial.folder / "ran"
    for name in ("torch", "numpy", "safetensors", "json", "cryoplug"):
        (trial.folder / f"{name}.py").write_text(f"open({str(ran)!r}, 'w')\nraise SystemExit(99)\n")
    trial.fault("denoise", "in", "--checkpoint", str(trial.bench.checkpoint), "-o", "out", code=0)
    trial.same_results(["mic_0001.mrc"])
    trial.check(not ran.exists(), "they never ran", "they were run")
