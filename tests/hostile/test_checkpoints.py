"""Checkpoints that hold code, or a header that lies about its weights."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import CRYO_CNN
from warm_start import WarmStart

ROOT = Path(__file__).resolve().parents[2]


class Gadget:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    weights = {key: np.full(shape, 0.1, "f4") for key, shape in CRYO_CNN.weight_shapes().items()}
    folder = tmp_path / "epoch_0001"
    save_checkpoint(folder, Checkpoint("cryo_cnn", weights), 0.5)
    return folder


def tensors(record: object, data_bytes: int = 64) -> bytes:
    header = record if isinstance(record, bytes) else json.dumps(record).encode()
    return len(header).to_bytes(8, "little") + header + bytes(data_bytes)


def entry(start: int, stop: int, shape: tuple[int, ...] = (16,)) -> dict[str, object]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.pkl", "net.ckpt", "model.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("command", ["denoise", "inspect"])
def test_a_pickle_is_never_opened_by_a_command(tmp_path: Path, warm_start: WarmStart, command: str, name: str) -> None:
    owned, path = tmp_path / "owned", tmp_path / "given" / name
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(Gadget(owned)))
    micrograph = tmp_path / "a.mrc"
    arguments = ["inspect", str(path)]
    if command == "denoise":
        arguments = ["denoise", str(micrograph), "--checkpoint", str(path), "-o", str(tmp_path / "out")]
        from cryoplug.formats.mrc import write_mrc

        write_mrc(micrograph, np.random.default_rng(1).normal(5, 1, (32, 32)).astype("f4"), pixel_size_angstrom=1.0)
    done = warm_start.start(*arguments, folder=tmp_path)
    printed, said = done.communicate(timeout=120)
    assert done.returncode == (4 if command == "denoise" else 1), said
    assert "Traceback" not in said
    assert str(path.parent) in printed + said
    assert not owned.exists()
    pickle.loads(path.read_bytes())
    assert owned.exists(), "the gadget itself does not work"


BIAS = "conv1.bias"


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ((1 << 63).to_bytes(8, "little") + b"{}", "claims 9223372036854775808 bytes"),
        (b"\xff" * 8 + b"{}", "claims 18446744073709551615 bytes"),
        ((100 << 20).to_bytes(8, "little") + b" " * (101 << 20), "allowed here: 1048576"),
        (b"\1\0\0", "3 bytes"),
        (tensors({BIAS: entry(0, 1 << 40)}), "needs 64 bytes"),
        (tensors({BIAS: entry(1 << 40, (1 << 40) + 64)}), "leaves a gap"),
        (tensors({BIAS: entry(64, 0)}), "needs 64 bytes"),
        (tensors({BIAS: entry(-64, 0)}), "two whole numbers"),
        (tensors({BIAS: entry(0, 64), "conv2.bias": entry(0, 64)}), "overlaps"),
        (tensors({BIAS: entry(0, 64), "conv2.bias": entry(32, 96)}, 96), "overlaps"),
        (tensors({BIAS: entry(0, 64)}, 128), "the file holds 128 bytes"),
        (tensors({BIAS: entry(0, 64, (1 << 32, 1 << 32, 1 << 32))}), "needs 316912650057057350374175801344 bytes"),
        (tensors({BIAS: entry(0, 64, (1 << 63, 2))}), "whole numbers"),
        (tensors({BIAS: entry(0, 64, (1,) * 1000)}), "whole numbers"),
        (tensors(b'{"conv1.bias":%s,"conv1.bias":%s}' % ((json.dumps(entry(0, 64)).encode(),) * 2)), "is there twice"),
        (tensors(b"[" * 100_000), "nested"),
        (tensors(b'{"a":' * 10_000 + b"1" + b"}" * 10_000), "nested"),
        (tensors(b'{"a":' + b"9" * 10_000 + b"}"), "digit"),
        (tensors(b"[]"), "an object"),
        (tensors(b'{"a":NaN}'), "NaN is not a number"),
        (tensors(b"[" + b"[]," * 300_000 + b"[]]"), "an object"),
        (tensors({BIAS: {**entry(0, 32), "dtype": "BF16"}}, 32), "bfloat16 (allowed: float32, float16)"),
        (tensors({BIAS: {**entry(0, 64), "dtype": "PICKLE"}}), "has the type 'PICKLE'"),
        (b"\x80\x04\x95" + bytes(100), "a pickle"),
        (b"PK\x03\x04" + bytes(100), "a pickle"),
    ],
)
def test_weights_whose_header_lies_are_refused(checkpoint: Path, refused, payload: bytes, message: str) -> None:
    (checkpoint / "model.safetensors").write_bytes(payload)
    assert message in refused("checkpoint", checkpoint)


def test_a_sparse_file_of_weights_is_refused_by_its_header(checkpoint: Path, refused) -> None:
    header = json.dumps({"conv1.weight": entry(0, 1 << 31, (1 << 29,))}).encode()
    path = checkpoint / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with path.open("r+b") as stream:
        stream.truncate(8 + len(header) + (1 << 31))
    assert "cryo_cnn needs 16x1x3x3" in refused("checkpoint", checkpoint)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"[" * 100_000, "nested"),
        (b" " * (2 << 20), "allowed: up to 1048576"),
        (b'{"model": "cryo_cnn", "model": "residual_cnn"}', "is there twice"),
        (b'{"format_version": 1e999}', "too large"),
        (b'{"format_version": %s}' % (b"9" * 10_000), "digit"),
        (b'{"format_version": 1, "model": "%s", "normalize": "none"}' % (b"x" * 100_000), "a name of up to 100"),
        (b'{"format_version": [[[[[[1]]]]]], "model": "cryo_cnn", "normalize": "none"}', "format_version [[[...]]]"),
        (b'{"format_version": 1, "model": "cryo_cnn", "normalize": ["none"]}', "normalize ['none'] (allowed"),
    ],
)
def test_a_record_that_is_a_bomb_is_refused(checkpoint: Path, refused, payload: bytes, message: str) -> None:
    (checkpoint / "checkpoint.json").write_bytes(payload)
    assert message in refused("checkpoint", checkpoint)


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.json", "conv1_bias.bin"])
@pytest.mark.parametrize("kind", ["pipe", "endless device"])
def test_a_pipe_or_device_is_not_waited_for(checkpoint: Path, refused, name: str, kind: str) -> None:
    (checkpoint / name).unlink()
    if kind == "pipe":
        os.mkfifo(checkpoint / name)
    else:
        (checkpoint / name).symlink_to("/dev/zero")
    assert name in refused("checkpoint", checkpoint)


def test_an_endless_loss_is_no_loss(checkpoint: Path, reader) -> None:
    (checkpoint / "loss.txt").unlink()
    (checkpoint / "loss.txt").symlink_to("/dev/zero")
    outcome = reader("inspect", checkpoint)
    assert outcome.error is None and "cannot be ranked" in outcome.message
    assert outcome.work_s < 1 and outcome.bytes < 1e8
