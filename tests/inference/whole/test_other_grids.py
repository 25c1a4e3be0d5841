"""Whole micrographs at another pixel size: what comes of them is what comes of bands; torch on the CPU stands for a GPU."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest
import torch

from cryoplug.core.normalization import KINDS
from cryoplug.core.pixel_size import PixelSize
from cryoplug.core.results import FileResult
from cryoplug.formats.mrc import MrcRowWriter, write_mrc
from cryoplug.inference import pipeline
from cryoplug.inference.delivery import Delivery
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.pipeline import DenoiseJob, run_pipeline
from cryoplug.inference.regrid import Regrid
from cryoplug.inference.whole import computing, preparing, room
from cryoplug.models.checkpoint import Checkpoint
from cryoplug.models.registry import model_spec

TOLERANCE = 4e-6
"""Of the range of the result. The network's own float32 differs by 5e-7 with the order of its sums, and repeats what the
float32 transforms differ by from float64 ones."""
STATISTICS = ("dmin", "dmax", "dmean", "rms")
REGRIDS = [
    Regrid(3.1),
    Regrid(1.1),
    Regrid(None, 0.25),
    Regrid(None, 0.0),
    Regrid(None, 1.0, 7.0),
    Regrid(3.1, 0.6, 9.0),
    Regrid(2.6, angpix_range=(2.0, 5.0)),
    Regrid(1.4, 0.5, angpix_range=(1.0, 2.0)),
    Regrid(0.9, angpix_range=(0.5, 1.1)),
]


def denoiser_of(normalize: str = "zscore", **named: object) -> Denoiser:
    weights = {name: tensor.numpy() for name, tensor in model_spec("cryo_cnn").build(seed=1).state_dict().items()}
    seen = {
        "micrographs": 3,
        "mean": (-0.1, 0.1),
        "sigma": (0.9, 1.1),
        "noise_sigma": (0.1, 2.0),
        "noise_level": 0.8,
        "skewness": {},
    }
    details = {"seen": seen, "pairs": "halves"}
    checkpoint = Checkpoint("cryo_cnn", weights, None, normalize, 6.0, details)
    return Denoiser(checkpoint, device="cpu", threads=2, tile=64, **named)


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return denoiser_of()


def micrograph(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    waves = np.sin(np.arange(shape[0]) / 9)[:, None] * np.cos(np.arange(shape[1]) / 7)
    return (rng.normal(10, 5, shape) + 4 * waves).astype(np.float32)


def jobs_of(folder: Path, *images: np.ndarray, pixel_size: float | None = 1.5) -> list[DenoiseJob]:
    jobs = []
    for index, image in enumerate(images):
        write_mrc(folder / f"m{index}.mrc", image, pixel_size_angstrom=pixel_size)
        jobs.append(DenoiseJob(folder / f"m{index}.mrc", folder / "whole" / f"m{index}.mrc"))
    return jobs


def run(
    jobs: list[DenoiseJob],
    denoiser: Denoiser,
    *,
    whole: bool = True,
    regrid: Regrid | None = None,
    dtype: str = "float32",
) -> dict[str, FileResult]:
    results: dict[str, FileResult] = {}
    denoiser = copy.copy(denoiser)
    denoiser.regrid = denoiser.regrid if regrid is None else regrid
    delivery = Delivery(lambda job, result: results.setdefault(job.target.name, result), "test", dtype)
    assert run_pipeline(jobs, denoiser, delivery, whole=whole)
    return results


def both_ways(jobs: list[DenoiseJob], denoiser: Denoiser, **named: object) -> dict[str, FileResult]:
    """Denoise as a whole and in bands, see that all is the same, and give the results."""
    in_bands = [replace(job, target=job.target.parents[1] / "bands" / job.target.name) for job in jobs]
    found, wanted = run(jobs, denoiser, **named), run(in_bands, denoiser, whole=False, **named)
    assert sorted(found) == sorted(wanted)
    for job, other in zip(jobs, in_bands, strict=True):
        ours, theirs = found[job.target.name], wanted[other.target.name]
        message = theirs.message.replace(str(other.target), str(job.target))
        assert (ours.status, ours.message, ours.exit_code) == (theirs.status, message, theirs.exit_code)
        if ours.status == "done":
            assert (ours.shape, ours.pixel_size_angstrom) == (theirs.shape, theirs.pixel_size_angstrom)
            assert (ours.sigma_in, ours.sigma_out) == pytest.approx((theirs.sigma_in, theirs.sigma_out), rel=1e-4)
            same_files(job.target, other.target)
    return found


def same_files(whole: Path, bands: Path) -> None:
    with mrcfile.open(whole) as one, mrcfile.open(bands) as other:
        assert one.data.dtype == other.data.dtype and one.data.shape == other.data.shape
        pixels, wanted = one.data.astype(np.float64), other.data.astype(np.float64)
        # Grey values are rounded to float32 before and after the padding, and then maybe to another float16.
        steps = 2 * np.spacing(np.float32(np.abs(wanted).max()))
        if other.data.dtype == np.float16:
            steps = steps + np.spacing(np.abs(other.data)).astype(np.float64)
        assert (np.abs(pixels - wanted) <= TOLERANCE * np.ptp(wanted) + steps).all()
        names = set(one.header.dtype.names) - set(STATISTICS)
        assert not [name for name in names if (one.header[name] != other.header[name]).any()]
        for name in STATISTICS:
            assert float(one.header[name]) == pytest.approx(float(other.header[name]), rel=1e-3)


@pytest.mark.parametrize("regrid", REGRIDS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_files_equal_those_made_band_by_band_whatever_is_done_around_the_network(tmp_path, denoiser, regrid, dtype):
    shapes = ((150, 210), (151, 211), (200, 129))
    jobs = jobs_of(tmp_path, *(micrograph(shape, seed) for seed, shape in enumerate(shapes)))
    results = both_ways(jobs, denoiser, regrid=regrid, dtype=dtype)
    assert [results[job.target.name].status for job in jobs] == ["done"] * 3
    if regrid.strength == 0.0 and dtype == "float32":
        assert np.array_equal(mrcfile.read(jobs[0].target), mrcfile.read(jobs[0].source))


@pytest.mark.parametrize("kind", KINDS)
def test_the_normalization_is_measured_on_the_networks_grid(tmp_path, kind):
    # A crop to half the pixels a side takes half the deviation of white noise.
    rng = np.random.default_rng(3)
    jobs = jobs_of(tmp_path, rng.normal(3, 5, (180, 200)).astype(np.float32))
    results = both_ways(jobs, denoiser_of(kind), regrid=Regrid(3.0))
    assert results["m0.mrc"].sigma_in == pytest.approx(5, rel=0.02)
    # Clipped are the negative pixels: 12 % of the crop, 27 % of the micrograph.
    assert "percentile normalization clips" not in results["m0.mrc"].message


def test_every_warning_is_the_same(tmp_path):
    jobs = jobs_of(tmp_path, micrograph((200, 160)) - 10, pixel_size=4.0)
    jobs[0] = replace(jobs[0], pixel_size_angstrom=3.0)
    result = both_ways(jobs, denoiser_of("percentile"), regrid=Regrid(2.0))["m0.mrc"]
    for part in ("pixel size 3 A, coarser than the 2 A", "trained at 6 A", "clips", "unlike the training data"):
        assert part in result.message
    assert result.pixel_size == PixelSize(3.0, "list", (("header", 4.0),))


@pytest.mark.parametrize("regrid", [Regrid(3.0), Regrid(None, 1.0, 9.0)], ids=str)
def test_an_unknown_pixel_size_fails_alone_and_by_name(tmp_path, denoiser, regrid):
    jobs = jobs_of(tmp_path, *(micrograph((150, 90), seed) for seed in range(3)))
    write_mrc(jobs[1].source, micrograph((150, 90)))
    results = both_ways(jobs, denoiser, regrid=regrid)
    assert [results[f"m{index}.mrc"].status for index in range(3)] == ["done", "failed", "done"]
    assert f"{jobs[1].source}: its pixel size is not known" in results["m1.mrc"].message
    known = replace(jobs[1], pixel_size_angstrom=1.5)
    assert both_ways([known], denoiser, regrid=regrid)["m1.mrc"].pixel_size_angstrom == 1.5


def test_pixels_that_are_not_finite_or_all_equal_fail_as_in_bands(tmp_path, denoiser):
    holed, flat = micrograph((150, 90)), np.full((150, 90), 3, np.float32)
    holed[4, 7] = np.nan
    results = both_ways(jobs_of(tmp_path, holed, micrograph((150, 90)), flat), denoiser, regrid=Regrid(3.0, 0.5))
    assert [results[f"m{index}.mrc"].status for index in range(3)] == ["failed", "done", "failed"]
    assert "(4, 7)" in results["m0.mrc"].message and "a micrograph needs contrast" in results["m2.mrc"].message


def test_what_float16_cannot_hold_fails_alone(tmp_path, denoiser):
    jobs = jobs_of(tmp_path, micrograph((150, 90)), micrograph((150, 90)) * 1e6)
    results = both_ways(jobs, denoiser, regrid=Regrid(3.0, 0.5), dtype="float16")
    assert [results[f"m{index}.mrc"].status for index in range(2)] == ["done", "failed"]


def banded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    count: list[int] = []
    real = MrcRowWriter.finish
    monkeypatch.setattr(MrcRowWriter, "finish", lambda self: count.append(1) or real(self))
    return count


def test_what_is_too_large_on_either_grid_goes_in_bands_among_the_others(tmp_path, denoiser, monkeypatch):
    jobs = jobs_of(tmp_path, micrograph((80, 90)), micrograph((150, 90)), micrograph((70, 70)))
    monkeypatch.setattr(room, "MOST_PIXELS", 100 * 100)
    for regrid, large in ((Regrid(3.0), 1), (Regrid(0.75), 3), (Regrid(None, 0.5), 1)):
        with monkeypatch.context() as patch:
            count = banded(patch)
            run(jobs, denoiser, regrid=regrid)
            assert len(count) == large
        both_ways(jobs, denoiser, regrid=regrid)


@pytest.mark.parametrize(("module", "name"), [(preparing, "resample_image"), (computing, "finish")])
def test_a_device_without_room_for_the_transforms_gets_bands(tmp_path, denoiser, monkeypatch, module, name):
    def full(*arguments: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr(module, name, full)
    jobs = jobs_of(tmp_path, micrograph((150, 90)), micrograph((90, 150)))
    count = banded(monkeypatch)
    both_ways(jobs, denoiser, regrid=Regrid(3.0, 0.5))
    assert len(count) == 4


@pytest.mark.parametrize("regrid", [Regrid(), *REGRIDS], ids=str)
def test_a_gpu_gets_whole_micrographs_whatever_is_done_around_the_network(monkeypatch, regrid):
    seen = []
    monkeypatch.setattr(
        pipeline, "run_whole", lambda jobs, denoiser, *others, **named: bool(seen.append(denoiser.regrid)) or True
    )
    gpu = SimpleNamespace(device=torch.device("cuda"), regrid=regrid)
    assert run_pipeline([], gpu, Delivery(print, "test")) and seen == [regrid]
