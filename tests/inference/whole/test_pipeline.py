"""Whole micrographs, several at a time: the same code as on a GPU, on the CPU."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryoplug.core.normalization import KINDS, fit_normalization, fit_to
from cryoplug.core.repairs import repaired_image
from cryoplug.core.results import FileResult
from cryoplug.core.thumbnail import thumbnail_of
from cryoplug.errors import DeviceError, StorageError
from cryoplug.formats.mrc import MrcMicrograph, MrcRowWriter, validate_mrc, write_mrc
from cryoplug.inference.delivery import Delivery
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.pipeline import DenoiseJob, run_pipeline
from cryoplug.inference.whole import computing, preparing, room
from cryoplug.inference.whole import pipeline as whole_pipeline
from cryoplug.inference.whole import pixels as whole_pixels
from cryoplug.inference.whole.pixels import DevicePixels, decode, normalised, repair, restored
from cryoplug.machine.channel import Closed
from cryoplug.machine.devices import OutOfDeviceMemory
from cryoplug.machine.pinned import PinnedBuffers
from cryoplug.models.checkpoint import Checkpoint
from cryoplug.models.registry import model_spec

SHAPE = (150, 90)


def denoiser_of(model: str = "cryo_cnn", normalize: str = "zscore", **named: object) -> Denoiser:
    weights = {name: tensor.numpy() for name, tensor in model_spec(model).build(seed=1).state_dict().items()}
    return Denoiser(Checkpoint(model, weights, normalize=normalize), device="cpu", threads=2, **named)


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return denoiser_of()


def jobs_in(folder: Path, count: int, *, shape: tuple[int, int] = SHAPE) -> list[DenoiseJob]:
    rng = np.random.default_rng(0)
    jobs = []
    for index in range(count):
        write_mrc(folder / f"m{index}.mrc", rng.normal(100, 5, shape).astype(np.float32), pixel_size_angstrom=1.5)
        jobs.append(DenoiseJob(folder / f"m{index}.mrc", folder / "whole" / f"m{index}.mrc"))
    return jobs


def run(jobs: Iterable[DenoiseJob], denoiser: Denoiser, **hooks: object) -> tuple[bool, dict[str, FileResult]]:
    results: dict[str, FileResult] = {}
    lock = threading.Lock()

    def keep(job: DenoiseJob, result: FileResult) -> None:
        with lock:
            assert job.target.name not in results, "finished once"
            results[job.target.name] = result

    whole = hooks.pop("whole", True)
    arguments: dict = {"finish": keep, "label": "test", **hooks}
    return run_pipeline(jobs, denoiser, Delivery(**arguments), whole=whole), results


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*partial*"))


def no_thread_is_left() -> bool:
    return not any(thread.name.startswith("cryoplug-files") for thread in threading.enumerate())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_files_equal_those_made_band_by_band_headers_included(tmp_path, kind, dtype):
    denoiser = denoiser_of(normalize=kind, tile=32)
    jobs = jobs_in(tmp_path, 5)
    in_bands = [DenoiseJob(job.source, tmp_path / "bands" / job.source.name) for job in jobs]
    complete, found = run(jobs, denoiser, dtype=dtype)
    assert complete and run(in_bands, denoiser, dtype=dtype, whole=False)[0]
    for job, other in zip(jobs, in_bands, strict=True):
        with mrcfile.open(job.target) as whole, mrcfile.open(other.target) as bands:
            assert whole.data.dtype == bands.data.dtype
            assert np.allclose(whole.data, bands.data, rtol=1e-3 if dtype == "float16" else 1e-5, atol=1e-5)
            assert {name for name in whole.header.dtype.names if (whole.header[name] != bands.header[name]).any()} <= {
                "dmin",
                "dmax",
                "dmean",
                "rms",
            }
            for name in ("dmin", "dmax", "dmean", "rms"):
                assert float(whole.header[name]) == pytest.approx(float(bands.header[name]), rel=1e-3)
        assert not [item for item in validate_mrc(job.target) if item.severity != "note"]
        result = found[job.target.name]
        assert (result.shape, result.pixel_size_angstrom) == (SHAPE, 1.5)
        assert result.sigma_out == pytest.approx(mrcfile.read(job.target).std(dtype=np.float64), rel=1e-4)
        assert result.sigma_in == pytest.approx(mrcfile.read(job.source).std(dtype=np.float64), rel=1e-6)
    assert no_thread_is_left() and not left_over(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 2), (37, 53), (256, 129)])
def test_normalization_measured_on_a_device_is_that_of_the_stream(tmp_path, kind, shape):
    rng = np.random.default_rng(7)
    for pixels in (
        rng.normal(3, 2, shape),
        rng.poisson(2, shape) + (np.arange(shape[1]) == 0),
        rng.normal(6802, 8.9, shape),
        np.where(rng.random(shape) < 0.999, -0.0, 5.0) + (np.arange(shape[1]) == 0),
    ):
        pixels = pixels.astype(np.float32)
        write_mrc(tmp_path / "m.mrc", pixels)
        with MrcMicrograph(tmp_path / "m.mrc") as source:
            wanted = fit_normalization(source, kind)
        measured = DevicePixels(torch.from_numpy(pixels), Path("m.mrc"))
        found, statistics = fit_to(measured, kind), measured.statistics()
        assert (found.kind, found.clip_low, found.clip_high) == (wanted.kind, wanted.clip_low, wanted.clip_high)
        assert (found.offset, found.scale) == pytest.approx((wanted.offset, wanted.scale), rel=1e-12)
        assert statistics.std == pytest.approx(pixels.std(dtype=np.float64), rel=1e-9)
        assert np.array_equal(normalised(torch.from_numpy(pixels), found).numpy(), found.apply(pixels))
        assert np.array_equal(restored(torch.from_numpy(pixels.copy()), found).numpy(), found.invert(pixels))


@pytest.mark.parametrize("name", ["i1", "u1", "<i2", ">i2", "<u2", ">u2", "<f2", ">f2", "<f4", ">f4"])
def test_every_type_of_pixel_is_decoded_to_what_numpy_reads(name):
    dtype = np.dtype(name)
    raw = np.random.default_rng(1).integers(0, 256, 7 * 5 * dtype.itemsize, dtype=np.uint8)
    if dtype.kind == "f":
        raw = np.random.default_rng(1).normal(0, 100, 35).astype(dtype).view(np.uint8)
    wanted = raw.view(dtype).reshape(7, 5).astype(np.float32)
    assert np.array_equal(decode(torch.from_numpy(raw), dtype, (7, 5)).numpy(), wanted)


@pytest.mark.parametrize("most", [1 << 15, 0], ids=["one by one", "in rows"])
@pytest.mark.parametrize("shape", [(90, 130), (7, 300), (200, 5)])
def test_hot_pixels_found_on_a_device_are_those_of_the_host(monkeypatch, shape, most):
    monkeypatch.setattr(whole_pixels, "MOST_EXAMINED", most)
    rng = np.random.default_rng(4)
    image = rng.normal(100, 5, shape).astype(np.float32)
    height, width = shape
    image[0, 0] = image[-1, -1] = image[0, width // 2] = 4000
    image[height // 2, 1] = -900
    image[:3, 2:4] = 700  # a clump
    image[-6:, -5:] = 300  # a thing in the ice
    image[height // 2, 4], image[1, -2] = np.nan, np.inf
    wanted, repairs = repaired_image(image)
    hot = repairs.hot
    pixels = torch.from_numpy(image.copy())
    found = repair(pixels).hot
    assert len(hot) > 2 and np.array_equal(pixels.numpy(), wanted, equal_nan=True)
    for name in ("y", "x", "values"):
        assert np.array_equal(getattr(found, name), getattr(hot, name))


@pytest.mark.parametrize("lines", [(0, 0, 3, 1), (9, 0, 0, 0), (2, 1, 20, 4)])
def test_a_bad_border_repaired_on_a_device_is_that_of_the_host(lines):
    top, bottom, left, right = lines
    image = np.zeros((530, 610), np.float32)
    image[top : 530 - bottom, left : 610 - right] = np.random.default_rng(4).normal(
        100, 5, (530 - top - bottom, 610 - left - right)
    )
    image[200, 300] = 4000
    wanted, repairs = repaired_image(image)
    pixels = torch.from_numpy(image.copy())
    found = repair(pixels)
    assert found.border == repairs.border and found.border.lines == lines
    assert len(found.hot) == len(repairs.hot) == 1 and np.array_equal(pixels.numpy(), wanted)


def test_a_bad_border_is_told_and_counted_on_every_road(tmp_path, denoiser):
    pixels = np.random.default_rng(2).normal(100, 5, (512, 520)).astype(np.float32)
    pixels[:, :2] = 0
    write_mrc(tmp_path / "m.mrc", pixels)
    mrcfile.write(tmp_path / "s.mrcs", np.stack([pixels, pixels[:, ::-1]]))
    said = []
    for whole in (True, False):
        job = DenoiseJob(tmp_path / "m.mrc", tmp_path / f"{whole}.mrc")
        (result,) = run([job], denoiser, whole=whole)[1].values()
        assert result.bad_border == (0, 0, 2, 0)
        said.append(result.message)
    assert said[0] == said[1] and "bad border: 2 columns at the left were replaced by pixels from beside" in said[0]
    stack = DenoiseJob(tmp_path / "s.mrcs", tmp_path / "out.mrcs", is_stack=True)
    (result,) = run([stack], denoiser)[1].values()
    assert result.bad_border == (0, 0, 2, 2) and "2 of 2 sections had a bad border" in result.message


def test_other_formats_and_packed_pixels_go_the_same_way(tmp_path, denoiser):
    import tifffile

    pixels = np.random.default_rng(2).integers(0, 15, SHAPE).astype(np.uint8)
    tifffile.imwrite(tmp_path / "t.tif", pixels[::-1])  # the first row of a TIFF is the last one of an MRC
    write_mrc(tmp_path / "m.mrc", pixels)
    jobs = [DenoiseJob(tmp_path / name, tmp_path / "whole" / f"{name}.mrc") for name in ("t.tif", "m.mrc")]
    assert run(jobs, denoiser)[0]
    assert np.array_equal(mrcfile.read(jobs[0].target), mrcfile.read(jobs[1].target))


def test_a_file_that_fails_is_named_and_the_others_are_done(tmp_path, denoiser):
    jobs = jobs_in(tmp_path, 6)
    nan = np.full(SHAPE, 3, np.float32)
    nan[4, 7] = np.nan
    write_mrc(jobs[1].source, nan)
    write_mrc(jobs[2].source, np.full(SHAPE, 3, np.float32))
    jobs[3].source.write_bytes(b"no micrograph" * 100)
    jobs[4].source.unlink()
    complete, results = run(jobs, denoiser)
    assert complete and {name for name, result in results.items() if result.status == "done"} == {"m0.mrc", "m5.mrc"}
    assert "(4, 7)" in results["m1.mrc"].message and "a micrograph needs contrast" in results["m2.mrc"].message
    assert results["m3.mrc"].exit_code == 4 and "there is no such file" in results["m4.mrc"].message
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == ["m0.mrc", "m5.mrc"]


def test_a_file_that_float16_cannot_hold_fails_alone(tmp_path, denoiser):
    jobs = jobs_in(tmp_path, 3)
    write_mrc(jobs[1].source, mrcfile.read(jobs[1].source) * 1e6)
    complete, results = run(jobs, denoiser, dtype="float16")
    assert complete and [results[f"m{index}.mrc"].status for index in range(3)] == ["done", "failed", "done"]
    assert "does not fit into float16" in results["m1.mrc"].message and not left_over(tmp_path)


def test_micrographs_that_are_too_large_go_in_bands_among_the_others(tmp_path, denoiser, monkeypatch):
    monkeypatch.setattr(room, "MOST_PIXELS", 100 * 100)
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir(), large.mkdir()
    jobs = [job for pair in zip(jobs_in(small, 3, shape=(80, 90)), jobs_in(large, 3), strict=True) for job in pair]
    banded: list[int] = []
    real = MrcRowWriter.finish
    monkeypatch.setattr(MrcRowWriter, "finish", lambda self: banded.append(1) or real(self))
    finished = []
    complete = run_pipeline(
        jobs,
        denoiser,
        Delivery(lambda job, result: finished.append((job, result.status)), "test"),
        whole=True,
    )
    assert complete and len(banded) == 3 and sorted(map(id, jobs)) == sorted(id(job) for job, _ in finished)
    for job in jobs:
        wanted = denoiser.denoise(mrcfile.read(job.source))
        assert np.allclose(mrcfile.read(job.target), wanted, rtol=0, atol=1e-4)


def test_a_device_without_room_for_a_whole_image_gets_it_in_bands(tmp_path, monkeypatch):
    denoiser = denoiser_of()
    jobs = jobs_in(tmp_path, 3)

    def full(*arguments: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr(preparing, "decode", full)
    assert run(jobs, denoiser)[0]
    for job in jobs:
        assert np.allclose(mrcfile.read(job.target), denoiser.denoise(mrcfile.read(job.source)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("model", ["residual_cnn", "unet"])
def test_tiles_of_a_whole_image_are_made_smaller_until_they_fit_and_the_result_stays(model):
    denoiser = denoiser_of(model)
    image = torch.from_numpy(np.random.default_rng(3).random((301, 310), np.float32))
    wanted = denoiser.forward_on_device(image)
    tight = denoiser_of(model)
    real, sizes = tight.network.module, []

    class Tight(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            sizes.append(pixels.shape[-2] * pixels.shape[-1])
            if sizes[-1] > 200 * 320:
                raise torch.OutOfMemoryError("tried to allocate")
            return real(pixels)

    tight.network.module = Tight()
    assert torch.allclose(tight.forward_on_device(image), wanted, rtol=0, atol=1e-5)
    assert max(sizes) > 200 * 320 and min(sizes) <= 200 * 320


def test_memory_that_never_suffices_says_so_after_trying_small_tiles():
    denoiser = denoiser_of()

    class Full(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("tried to allocate")

    denoiser.network.module = Full()
    with pytest.raises(OutOfDeviceMemory):
        denoiser.forward_on_device(torch.zeros(300, 300))


class Narrow:
    """Stands for a network in half precision, into which the pixels of some micrographs do not fit."""

    def __init__(self, denoiser: Denoiser, limit: float, *, has_room: bool = True) -> None:
        self.real, self.limit, self.has_room = denoiser.forward_on_device, limit, has_room
        self.again = 0

    def __call__(self, pixels: torch.Tensor, should_stop: Callable[[], bool], fits: object) -> torch.Tensor:
        made = self.real(pixels, should_stop)
        if isinstance(fits, list):
            fits.append((pixels.abs() < self.limit).all())
            return made if bool(fits[-1]) else torch.full_like(made, math.nan)
        self.again += 1
        if not self.has_room:
            raise torch.OutOfMemoryError("tried to allocate")
        return made


@pytest.mark.parametrize("has_room", [True, False])
def test_what_does_not_fit_into_half_precision_is_computed_once_more_and_the_others_are_not(
    tmp_path, monkeypatch, has_room
):
    denoiser = denoiser_of()
    jobs = jobs_in(tmp_path, 5)
    for job in (jobs[1], jobs[4]):
        pixels = mrcfile.read(job.source).copy()
        pixels[70:76, 40:46] += 60  # no hot pixels, which would be repaired
        write_mrc(job.source, pixels)
    narrow, forgotten = Narrow(denoiser, 8.0, has_room=has_room), []
    monkeypatch.setattr(computing.Computer, "forget_recording", lambda self: forgotten.append(1))
    monkeypatch.setattr(denoiser, "forward_on_device", narrow)
    complete, results = run(jobs, denoiser)
    assert complete and {result.status for result in results.values()} == {"done"} and narrow.again == 2
    assert len(forgotten) == (0 if has_room else 2), "its memory may be what is lacking"
    for job in jobs:
        wanted = denoiser.denoise(mrcfile.read(job.source))
        assert np.allclose(mrcfile.read(job.target), wanted, rtol=0, atol=1e-4)


def broken(error: Exception) -> Callable[..., None]:
    def fail(*arguments: object, **named: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("module", "name", "error"),
    [
        (preparing, "decode", DeviceError("the GPU failed")),
        (whole_pipeline, "open_source", ZeroDivisionError("a bug in a reader")),
        (whole_pipeline, "mrc_head", StorageError("out: no space left")),
        (whole_pipeline, "remarks_on_reading", ZeroDivisionError("a bug in a writer")),
    ],
)
def test_the_first_error_of_any_thread_ends_all_and_is_raised(tmp_path, denoiser, monkeypatch, module, name, error):
    jobs = jobs_in(tmp_path, 12)
    monkeypatch.setattr(module, name, broken(error))
    with pytest.raises(type(error), match=str(error)):
        run(jobs, denoiser)
    assert no_thread_is_left() and not left_over(tmp_path)


def test_an_error_in_a_callback_or_in_the_jobs_is_raised(tmp_path, denoiser):
    jobs = jobs_in(tmp_path, 12)

    def coming() -> Iterable[DenoiseJob]:
        yield jobs[0]
        raise StorageError("out: cannot be claimed")

    for arguments in ({"finish": broken(ZeroDivisionError("x"))}, {"begin": broken(ZeroDivisionError("x"))}):
        with pytest.raises(ZeroDivisionError):
            run(jobs, denoiser, **arguments)
    with pytest.raises(StorageError, match="cannot be claimed"):
        run(coming(), denoiser)
    assert no_thread_is_left() and not left_over(tmp_path)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_stop_with_files_in_flight_leaves_whole_files_only(tmp_path, denoiser, after):
    jobs = jobs_in(tmp_path, 12)
    finished = threading.Semaphore(0)
    results: list[FileResult] = []
    stop = threading.Event()

    def finish(job: DenoiseJob, result: FileResult) -> None:
        results.append(result)
        if len(results) >= after:
            stop.set()
        finished.release()

    if after == 0:
        stop.set()
    complete, _ = run(jobs, denoiser, finish=finish, should_stop=stop.is_set)
    assert not complete and len(results) < len(jobs)
    assert no_thread_is_left() and not left_over(tmp_path)
    assert {result.output for result in results} == {job.target for job in jobs if job.target.exists()}
    for job in jobs:
        if job.target.exists():
            assert not [item for item in validate_mrc(job.target) if item.severity != "note"]


def test_a_stop_that_comes_while_nothing_is_to_do_ends_the_wait(denoiser):
    stop = threading.Event()

    def waiting() -> Iterable[DenoiseJob]:
        threading.Timer(0.1, stop.set).start()
        stop.wait(10)
        yield from ()

    assert run(waiting(), denoiser, should_stop=stop.is_set) == (False, {})


def test_no_jobs_are_done_at_once(denoiser):
    assert run([], denoiser) == (True, {})


def test_readers_and_writers_work_at_the_same_time_and_hold_few_files(tmp_path, denoiser, monkeypatch):
    jobs = jobs_in(tmp_path, 20)
    threads = whole_pipeline.Threads(readers=2, writers=3)
    monkeypatch.setattr(whole_pipeline.Threads, "for_cores", classmethod(lambda cls, cores, processes: threads))
    writing = threading.Barrier(3)
    under_way, most, lock = 0, 0, threading.Lock()

    def coming() -> Iterable[DenoiseJob]:
        nonlocal under_way, most
        for job in jobs:
            with lock:
                under_way += 1
                most = max(most, under_way)
            yield job

    def begin(job: DenoiseJob) -> None:
        if job in jobs[:3]:
            writing.wait(10)  # three writers at once, or this times out

    def finish(job: DenoiseJob, result: FileResult) -> None:
        nonlocal under_way
        with lock:
            under_way -= 1

    assert run(coming(), denoiser, begin=begin, finish=finish)[0]
    # In the hands of each thread and in the two queues; and one that is queued on the device.
    assert most <= 2 * threads.readers + 2 * threads.writers + 2


def test_buffers_are_bounded_in_number_and_bytes_and_lent_again():
    buffers = PinnedBuffers(most=2, most_bytes=100, device=torch.device("cpu"))
    first, second = buffers.take(40), buffers.take(40)
    waiting = threading.Thread(target=lambda: got.append(buffers.take(30)), daemon=True)
    got: list[torch.Tensor] = []
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive() and buffers.size_bytes == 80
    buffers.give_back(first)
    waiting.join(10)
    assert got and got[0] is first and buffers.size_bytes == 80
    buffers.give_back(second)
    buffers.give_back(first)
    assert buffers.take(500).numel() == 500 and buffers.size_bytes <= 500, "a large one alone is always lent"
    buffers.close()
    with pytest.raises(Closed):
        buffers.take(1)


@pytest.mark.parametrize("shape", [(150, 90), (1501, 760), (7, 2000)])
@pytest.mark.parametrize("output_angpix", [None, 3.0])
def test_thumbnails_from_the_device_are_those_of_the_files(
    tmp_path: Path, shape: tuple[int, int], output_angpix: float | None
) -> None:
    if output_angpix is not None and min(shape) < 16:
        pytest.skip("too narrow for a coarser grid")
    job = jobs_in(tmp_path, 1, shape=shape)[0]
    seen = []
    complete, results = run([job], denoiser_of(output_angpix=output_angpix), look=lambda *what: seen.append(what))
    assert complete
    assert results["m0.mrc"].status == "done"
    ((told, both, size),) = seen
    assert (told, size) == (job, pytest.approx(1.5))
    for small, path in ((both.raw, job.source), (both.denoised, job.target)):
        with MrcMicrograph(path) as source:
            expected = thumbnail_of(source)
        assert small.shape == expected.shape
        np.testing.assert_allclose(small.pixels, expected.pixels, rtol=1e-4, atol=1e-3)


def test_nobody_makes_thumbnails_that_nobody_wants(
    tmp_path: Path, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (preparing, computing):
        monkeypatch.setattr(module, "thumbnail", None)
    complete, results = run(jobs_in(tmp_path, 1), denoiser)
    assert complete
    assert results["m0.mrc"].status == "done"


def test_processes_that_share_the_cores_have_little_more_threads_than_one_would_have() -> None:
    for cores in (1, 2, 8, 16, 32, 128):
        alone = whole_pipeline.Threads.for_cores(cores)
        assert alone.readers >= 1 and alone.writers >= 2
        for processes in (2, 3, 4, 16):
            shared = whole_pipeline.Threads.for_cores(cores, processes)
            assert 1 <= shared.readers <= alone.readers and 2 <= shared.writers <= alone.writers
            assert processes * shared.readers <= max(8, processes) and processes * shared.writers <= max(
                12, 2 * processes
            )
