"""Units kept: the mean of a result lies within 0.1 standard deviations of the raw mean, on any grey scale."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest

from cryoplug.core.mean_kept import TOLERATED, mean_shift, shift_remark
from cryoplug.inference.delivery import Delivery
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.pipeline import DenoiseJob, run_pipeline
from cryoplug.inference.regrid import Regrid
from cryoplug.models.checkpoint import Checkpoint
from cryoplug.models.registry import model_spec


@functools.cache
def checkpoint_of(model: str, normalize: str, offset: float) -> Checkpoint:
    config = {"depth": 1, "width": 2} if model == "unet" else {}
    network = model_spec(model).build(seed=4, config=config)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    last = {"cryo_cnn": "conv3.bias", "residual_cnn": "conv12.bias", "unet": "output.bias"}[model]
    weights[last] = weights[last] + np.float32(offset)
    return Checkpoint(model, weights, config, normalize)


@functools.cache
def denoiser_of(model: str, normalize: str, offset: float, **options: float) -> Denoiser:
    return Denoiser(checkpoint_of(model, normalize, offset), device="cpu", threads=1, **options)


@functools.cache
def grey_scales() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    signal = np.add.outer(np.sin(np.arange(64) / 9), np.cos(np.arange(90) / 11))
    image = signal + rng.normal(0, 2, signal.shape)
    return {
        "counts": rng.poisson(np.clip(30 + 2 * signal, 1, None)).astype(np.float32),
        "few counts": rng.poisson(np.clip(0.8 + 0.1 * signal, 0.1, None)).astype(np.uint16),
        "background subtracted": image.astype(np.float32),
        "mostly negative": (image - 3).astype(np.float32),
        "far from zero": (6800 + 0.07 * image).astype(np.float32),
        "int8": np.clip(20 * image, -128, 127).astype(np.int8),
        "int16": (900 * image + 5000).astype(np.int16),
        "uint16": (3500 + 600 * image).astype(np.uint16),
        "float16": (5600 + 60 * image).astype(np.float16),
        "tiny": (1e-7 * image).astype(np.float32),
        "huge": (1e20 * image).astype(np.float32),
    }


@pytest.mark.parametrize("name", list(grey_scales()))
@pytest.mark.parametrize("normalize", ["percentile", "zscore", "robust"])
@pytest.mark.parametrize("model", ["cryo_cnn", "residual_cnn", "unet"])
@pytest.mark.parametrize("offset", [0.0, 0.3, -5.0])
def test_the_mean_of_a_result_is_that_of_the_micrograph(name: str, normalize: str, model: str, offset: float) -> None:
    image = grey_scales()[name]
    raw = image.astype(np.float64)
    made = denoiser_of(model, normalize, offset).denoise(image)
    assert abs(made.mean(dtype=np.float64) - raw.mean()) <= 0.1 * raw.std()
    mixed = denoiser_of(model, normalize, offset, angpix=3.0, strength=0.7).denoise(image, pixel_size_angstrom=1.5)
    assert abs(mixed.mean(dtype=np.float64) - raw.mean()) <= 0.1 * raw.std()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("regrid", [Regrid(), Regrid(angpix=3.0), Regrid(strength=0.5)])
@pytest.mark.parametrize("name", ["counts", "background subtracted", "far from zero", "int8", "uint16", "float16"])
def test_and_so_it_is_in_a_file(tmp_path: Path, whole: bool, dtype: str, regrid: Regrid, name: str) -> None:
    image = grey_scales()[name]
    with mrcfile.new(tmp_path / "m.mrc") as mrc:
        mrc.set_data(image)
        mrc.voxel_size = 1.5
    denoiser = Denoiser(checkpoint_of("cryo_cnn", "zscore", 3.0), device="cpu", threads=1)
    denoiser.regrid = regrid
    results = []
    run_pipeline(
        [DenoiseJob(tmp_path / "m.mrc", tmp_path / "out.mrc")],
        denoiser,
        Delivery(lambda job, result: results.append(result), "test", dtype),
        whole=whole,
    )
    with mrcfile.open(tmp_path / "out.mrc") as mrc:
        made, header = mrc.data.astype(np.float64), float(mrc.header.dmean)
    raw = image.astype(np.float64)
    assert abs(made.mean() - raw.mean()) <= 0.1 * raw.std()
    assert header == pytest.approx(made.mean(), rel=1e-5, abs=1e-4 * made.std())
    assert results[0].mean_shift != 0 and "cryoplug moved it back" in results[0].message


def test_what_is_within_the_tolerance_is_left_alone_and_nothing_is_made_of_nan() -> None:
    seen = SimpleNamespace(mean=10.0, std=2.0)
    for off, wanted in ((0.9 * TOLERATED, 0.0), (1.1 * TOLERATED, -2.2 * TOLERATED), (math.nan, 0.0), (math.inf, 0.0)):
        assert mean_shift(seen, 10 + 2 * off) == pytest.approx(wanted)
    assert mean_shift(None, 10.0) == 0.0
    assert shift_remark(1.9, 2.0) == "" and "moved the mean by 1.5 standard" in shift_remark(-3.0, 2.0)
