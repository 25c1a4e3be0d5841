"""One voice: what two commands or two roads have in common they say in the same words, and decide in one place."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import pytest

from cryoplug.formats.mrc import write_mrc
from cryoplug.inference.pipeline import run_pipeline
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.workflows.denoise import DenoiseRequest, denoise, workflow


def blur_that_moves_the_mean(folder: Path, normalize: str) -> Path:
    """Save a checkpoint whose network is a blur, and adds three standard deviations."""
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    weights = {name: np.zeros(t.shape, np.float32) for name, t in model_spec("cryo_cnn").build().state_dict().items()}
    weights["conv1.weight"][0, 0] = weights["conv2.weight"][0, 0] = weights["conv3.weight"][0, 0] = kernel
    weights["conv1.bias"][0], weights["conv3.bias"][0] = 30, -27
    checkpoint = Checkpoint(
        "cryo_cnn", weights, normalize=normalize, pixel_size_angstrom=2.0, details={"pairs": "halves"}
    )
    save_checkpoint(folder / "epoch_0001", checkpoint, 0.5)
    return folder


def exposure(folder: Path, *, level: float, hot: bool) -> Path:
    """Write an exposure with its halves beside it: one scene, noise of its own in each half."""
    random = np.random.default_rng(3)
    scene = np.kron(random.normal(0, 2, (24, 24)), np.ones((8, 8)))
    even, odd = ((level + scene + random.normal(0, 1, scene.shape)).astype(np.float32) for _ in range(2))
    if hot:
        even[40, 50] += 100
    for ending, pixels in (("", even + odd), ("_EVN", even), ("_ODD", odd)):
        write_mrc(folder / f"mic{ending}.mrc", pixels, pixel_size_angstrom=6)
    return folder / "mic.mrc"


def without_numbers(message: str) -> list[str]:
    return [re.sub(r"\d[\d.e+-]*", "N", remark) for remark in message.split("; ")]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("hot", [False, True])
@pytest.mark.parametrize(("normalize", "level"), [("zscore", 50.0), ("percentile", 0.0), ("zscore", 5000.0)])
def test_the_three_roads_of_denoise_remark_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, normalize: str, level: float, hot: bool, dtype: str
) -> None:
    checkpoint = blur_that_moves_the_mean(tmp_path / "model", normalize)
    micrograph = exposure(tmp_path, level=level, hot=hot)

    def remarks(output: str, *, halves: bool = False) -> list[str]:
        request = DenoiseRequest(
            inputs=(str(micrograph),),
            checkpoint=checkpoint,
            output=tmp_path / output,
            halves=halves,
            float16=dtype == "float16",
            device="cpu",
            threads=1,
        )
        (result,) = denoise(request).files
        assert result.status == "done", result.message
        return without_numbers(result.message)

    in_bands, by_halves = remarks("bands"), remarks("halves", halves=True)
    monkeypatch.setattr(workflow, "run_pipeline", functools.partial(run_pipeline, whole=True))
    assert remarks("whole") == in_bands == by_halves
    assert any("trained at" in remark for remark in in_bands), "the pixel size is told"
    assert any("moved the mean" in remark for remark in in_bands), "and the mean"
    assert any("hot pixel" in remark for remark in in_bands) == hot
