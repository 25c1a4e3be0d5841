"""Small micrographs and runs that the tests of ``denoise`` share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cryoplug.core.results import BatchResult
from cryoplug.formats.mrc import write_mrc
from cryoplug.models.registry import model_spec
from cryoplug.workflows.denoise import DenoiseRequest, denoise


def weights_of(seed: int) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model_spec("cryo_cnn").build(seed=seed).state_dict().items()}


def pixels(seed: int, shape: tuple[int, int] = (70, 90)) -> np.ndarray:
    return np.random.default_rng(seed).normal(50, 4, shape).astype(np.float32)


def micrographs(folder: Path, names: Sequence[str] = "abc", **named: object) -> list[Path]:
    paths = [folder / f"{name}.mrc" for name in names]
    for seed, path in enumerate(paths):
        write_mrc(path, pixels(seed), **{"pixel_size_angstrom": 1.25, **named})
    return paths


def go(checkpoint: Path, *inputs: object, output: str = "out", **named: object) -> BatchResult:
    request = DenoiseRequest(
        tuple(map(str, inputs)), checkpoint, Path(output), **{"device": "cpu", "threads": 2, **named}
    )
    return denoise(request)


def statuses(batch: BatchResult) -> list[str]:
    return [item.status for item in batch.files]


def partials(folder: Path) -> list[Path]:
    return list(folder.rglob("*partial*"))
