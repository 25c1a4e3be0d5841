"""Weights in ``model.safetensors``, beside a sound ``checkpoint.json``."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import numpy as np

from cryoplug.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, validate_checkpoint
from cryoplug.models.registry import CRYO_CNN
from fuzz.targets import Target

_WORDS = (
    b"9223372036854775807", b"18446744073709551615", b"-1", b"[0,64]", b'"F16"', b'"dtype"', b"1e9", b"null", b"{}", b"[[",
    b'"conv1.bias"', b"4294967296,4294967296,4294967296", b"NaN", b'"\\u0000"',
)  # fmt: skip


@functools.cache
def saved() -> dict[str, bytes]:
    """Give the files of a small sound checkpoint by name."""
    random = np.random.default_rng(1)
    weights = {key: random.normal(0, 0.1, shape).astype("f4") for key, shape in CRYO_CNN.weight_shapes().items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "epoch_0001"
        save_checkpoint(path, Checkpoint("cryo_cnn", weights, details={"epoch": 1}), 0.5)
        return {item.name: item.read_bytes() for item in path.iterdir() if item.suffix != ".bin"}


def run(folder: Path, payload: bytes, name: str = "model.safetensors") -> None:
    """Put `payload` in place of one file, then validate and load."""
    files = dict(saved())
    if name == "model.safetensors":  # without the digest, which alone would refuse most of the damage
        files["checkpoint.json"] = json.dumps(
            {key: value for key, value in json.loads(files["checkpoint.json"]).items() if key != "weights_sha256"}
        ).encode()
    for other, content in {**files, name: payload}.items():
        (folder / other).write_bytes(content)
    validate_checkpoint(folder)
    load_checkpoint(folder)


TARGET = Target(seeds=lambda: (saved()["model.safetensors"],), run=run, words=_WORDS)
