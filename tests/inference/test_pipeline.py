from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryoplug.core.normalization import Normalization
from cryoplug.core.results import FileResult
from cryoplug.errors import DeviceError, FormatError, StorageError
from cryoplug.formats.mrc import MrcMicrograph, MrcRowWriter, write_mrc
from cryoplug.inference import pipeline
from cryoplug.inference.bands import reading
from cryoplug.inference.delivery import Delivery
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.pipeline import DenoiseJob, run_pipeline
from cryoplug.inference.regrid import Regrid
from cryoplug.models.checkpoint import Checkpoint
from cryoplug.models.registry import model_spec


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    weights = {name: tensor.numpy() for name, tensor in model_spec("cryo_cnn").build(seed=1).state_dict().items()}
    return Denoiser(Checkpoint("cryo_cnn", weights, normalize="zscore"), device="cpu", tile=32, threads=2)


def jobs_in(folder: Path, count: int, *, shape: tuple[int, int] = (150, 90)) -> list[DenoiseJob]:
    rng = np.random.default_rng(0)
    jobs = []
    for index in range(count):
        write_mrc(folder / f"m{index}.mrc", rng.normal(100, 5, shape).astype(np.float32), pixel_size_angstrom=1.5)
        jobs.append(DenoiseJob(folder / f"m{index}.mrc", folder / "out" / f"m{index}.mrc"))
    return jobs


def run(jobs: Iterable[DenoiseJob], denoiser: Denoiser, **hooks: object) -> tuple[bool, list[FileResult]]:
    results: list[FileResult] = []
    whole = hooks.pop("whole", None)
    arguments: dict = {"finish": lambda job, result: results.append(result), "label": "test", **hooks}
    return run_pipeline(jobs, denoiser, Delivery(**arguments), whole=whole), results


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*partial*"))


def no_thread_is_left() -> bool:
    return not any(thread.name.startswith("cryoplug-files") for thread in threading.enumerate())


def test_files_come_out_in_order_and_equal_the_image_in_memory(tmp_path, denoiser):
    jobs = jobs_in(tmp_path, 4)
    complete, results = run(jobs, denoiser)
    assert complete and [item.input for item in results] == [job.source for job in jobs]
    for job in jobs:
        with MrcMicrograph(job.source) as source, MrcMicrograph(job.target) as target:
            wanted = denoiser.denoise(source.read_rows(0, 150))
            assert np.allclose(target.read_rows(0, 150), wanted, rtol=0, atol=1e-4)
            assert target.pixel_size_angstrom == pytest.approx(1.5)
    assert no_thread_is_left() and not left_over(tmp_path)


def test_a_small_micrograph_is_read_once_and_comes_out_as_one_that_is_read_in_bands(tmp_path, denoiser, monkeypatch):
    reads = []
    real = MrcMicrograph.read_rows

    def counting(self: MrcMicrograph, start: int, stop: int) -> np.ndarray:
        reads.append((start, stop))
        return real(self, start, stop)

    monkeypatch.setattr(MrcMicrograph, "read_rows", counting)
    (job,) = jobs_in(tmp_path, 1)
    run([job], denoiser)
    held, once = job.target.read_bytes(), list(reads)
    monkeypatch.setattr(reading, "HELD_PIXELS", 0)
    run([job], denoiser)
    assert once == [(0, 150)] and len(reads) > 3
    assert job.target.read_bytes()[1024:] == held[1024:], "the pixels; the header has a date"


def test_no_jobs_are_done_at_once(denoiser):
    assert run([], denoiser) == (True, [])


def test_a_source_that_breaks_while_it_is_read_leaves_nothing_and_the_next_is_done(tmp_path, denoiser, monkeypatch):
    jobs = jobs_in(tmp_path, 3)
    monkeypatch.setattr(reading, "HELD_PIXELS", 0)  # a small one is read once, before anything is computed
    real = MrcMicrograph.read_rows
    measured = []

    def breaking(self: MrcMicrograph, start: int, stop: int) -> np.ndarray:
        # Statistics read from row 0 in high bands; the last band of the second file is reached only when denoising.
        if self.path.name == "m1.mrc" and start > 100:
            measured.append(start)
            raise FormatError(f"{self.path}: changed while reading")
        return real(self, start, stop)

    monkeypatch.setattr(MrcMicrograph, "read_rows", breaking)
    complete, results = run(jobs, denoiser)
    assert complete and measured
    assert [item.status for item in results] == ["done", "failed", "done"]
    assert "changed while reading" in results[1].message and results[1].exit_code == 4
    assert not jobs[1].target.exists() and not left_over(tmp_path)


def test_an_error_of_the_device_ends_everything_cleanly(tmp_path, denoiser, monkeypatch):
    jobs = jobs_in(tmp_path, 3)

    def broken(*arguments: object) -> np.ndarray:
        raise DeviceError("the GPU failed")

    monkeypatch.setattr(denoiser, "start", broken)
    with pytest.raises(DeviceError, match="the GPU failed"):
        run(jobs, denoiser)
    assert no_thread_is_left() and not left_over(tmp_path)
    assert not any(job.target.exists() for job in jobs)


def test_a_bug_in_the_reader_is_not_swallowed(tmp_path, denoiser, monkeypatch):
    def broken(path: Path) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(reading, "open_micrograph", broken)
    with pytest.raises(ZeroDivisionError):
        run(jobs_in(tmp_path, 2), denoiser)
    assert no_thread_is_left()


def test_a_bug_in_the_callback_is_not_swallowed(tmp_path, denoiser):
    def broken(job: DenoiseJob, result: FileResult) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        run(jobs_in(tmp_path, 4), denoiser, finish=broken)
    assert no_thread_is_left() and not left_over(tmp_path)


@pytest.mark.parametrize("bands", [0, 1, 4, 7])
def test_a_stop_at_any_band_leaves_whole_files_only(tmp_path, denoiser, bands, monkeypatch):
    jobs = jobs_in(tmp_path, 3)
    calls = []
    real = denoiser.start
    monkeypatch.setattr(denoiser, "start", lambda *arguments: calls.append(1) or real(*arguments))
    complete, results = run(jobs, denoiser, should_stop=lambda: len(calls) >= bands)
    assert not complete and len(results) < 3
    assert no_thread_is_left() and not left_over(tmp_path)
    assert {item.output for item in results} == {job.target for job in jobs if job.target.exists()}


def test_the_reader_goes_on_into_the_next_file_while_one_is_written(tmp_path, denoiser, monkeypatch):
    jobs = jobs_in(tmp_path, 2, shape=(40, 40))
    second_was_opened = threading.Event()
    real = reading.open_micrograph

    def noticing(path: Path) -> MrcMicrograph:
        if path == jobs[1].source:
            second_was_opened.set()
        return real(path)

    monkeypatch.setattr(reading, "open_micrograph", noticing)
    seen = []

    def begin(job: DenoiseJob) -> None:
        if job == jobs[0]:
            seen.append(second_was_opened.wait(10))

    run(jobs, denoiser, begin=begin)
    assert seen == [True]


def test_bands_under_way_are_few(tmp_path, denoiser, monkeypatch):
    jobs = jobs_in(tmp_path, 2, shape=(1500, 40))
    counts = {"read": 0, "written": 0, "most": 0}
    lock = threading.Lock()
    real_apply, real_write = Normalization.apply, MrcRowWriter.write_rows

    def applying(self: object, pixels: np.ndarray) -> np.ndarray:
        with lock:
            counts["read"] += 1
            counts["most"] = max(counts["most"], counts["read"] - counts["written"])
        return real_apply(self, pixels)

    def writing(self: object, rows: np.ndarray) -> None:
        real_write(self, rows)
        with lock:
            counts["written"] += 1

    monkeypatch.setattr(Normalization, "apply", applying)
    monkeypatch.setattr(MrcRowWriter, "write_rows", writing)
    complete, _ = run(jobs, denoiser)
    assert complete and counts["read"] == counts["written"] == 2 * 47
    # Two queues, one band in the hands of each thread, and one more that is computed.
    assert counts["most"] <= 2 * pipeline.QUEUE_BANDS + 2 + denoiser.bands_at_once((1500, 40))


def test_the_section_of_a_stack_is_asked_for(tmp_path, denoiser, monkeypatch):
    (job,) = jobs_in(tmp_path, 1)
    real, asked = reading.open_micrograph, []

    def noticing(path: Path, **named: object) -> MrcMicrograph:
        asked.append(named)
        return real(path)

    monkeypatch.setattr(reading, "open_micrograph", noticing)
    assert run([replace(job, section=3)], denoiser)[0] and run([job], denoiser)[0]
    assert asked == [{"section": 3}, {}]


def test_a_file_that_float16_cannot_hold_fails_and_the_next_is_right(tmp_path, denoiser):
    jobs = jobs_in(tmp_path, 3)
    with MrcMicrograph(jobs[1].source) as source:
        pixels = source.read_rows(0, 150)
    write_mrc(jobs[1].source, pixels * 1e6)
    complete, results = run(jobs, denoiser, dtype="float16")
    assert complete and [item.status for item in results] == ["done", "failed", "done"]
    assert "does not fit into float16" in results[1].message and results[1].shape == (150, 90)
    with MrcMicrograph(jobs[2].source) as source, MrcMicrograph(jobs[2].target) as target:
        wanted = denoiser.denoise(source.read_rows(0, 150))
        assert np.allclose(target.read_rows(0, 150), wanted, rtol=1e-3, atol=0)
    assert not left_over(tmp_path)


def test_a_file_on_another_grid_that_float16_cannot_hold_takes_no_other_file_with_it(tmp_path, denoiser):
    jobs = jobs_in(tmp_path, 4)
    for job in (jobs[1], jobs[3]):
        with MrcMicrograph(job.source) as source:
            pixels = source.read_rows(0, 150)
        write_mrc(job.source, pixels * 1e6, pixel_size_angstrom=1.5)
    denoiser = copy.copy(denoiser)
    denoiser.regrid = Regrid(3.0)
    complete, results = run(jobs, denoiser, dtype="float16")
    assert complete and [item.status for item in results] == ["done", "failed", "done", "failed"]
    assert "does not fit into float16" in results[1].message and results[1].shape == (150, 90)
    assert not left_over(tmp_path)


def test_the_numbers_of_a_journal_are_those_of_the_files(tmp_path, denoiser):
    (job,) = jobs_in(tmp_path, 1)
    _, (result,) = run([job], denoiser)
    with MrcMicrograph(job.source) as source, MrcMicrograph(job.target) as target:
        assert result.sigma_in == pytest.approx(source.read_rows(0, 150).std(dtype=np.float64), rel=1e-5)
        assert result.sigma_out == pytest.approx(target.read_rows(0, 150).std(dtype=np.float64), rel=1e-5)
    assert (result.shape, result.pixel_size_angstrom) == ((150, 90), 1.5)


def test_jobs_may_come_one_after_another(tmp_path, denoiser):
    jobs = jobs_in(tmp_path, 2)
    finished = threading.Event()

    def coming() -> Iterator[DenoiseJob]:
        yield jobs[0]
        assert finished.wait(10), "the first is done before the second is known"
        yield jobs[1]

    complete, _ = run(coming(), denoiser, finish=lambda job, result: finished.set())
    assert complete and all(job.target.exists() for job in jobs)


def test_a_stop_while_nothing_is_to_do_ends_the_wait(tmp_path, denoiser):
    stop = threading.Event()

    def waiting() -> Iterator[DenoiseJob]:
        threading.Timer(0.1, stop.set).start()
        stop.wait(10)
        yield from ()

    assert run(waiting(), denoiser, should_stop=stop.is_set) == (False, [])


@pytest.mark.parametrize("whole", [False, True])
def test_an_error_ends_the_wait_for_jobs_that_are_still_to_come(tmp_path, denoiser, whole):
    (job,) = jobs_in(tmp_path, 1)
    ended = threading.Event()

    def coming() -> Iterator[DenoiseJob]:
        yield job
        assert ended.wait(30), "nobody said that the work has ended"

    def broken(job: DenoiseJob, result: FileResult) -> None:
        raise StorageError("out: no space left")

    with pytest.raises(StorageError, match="no space left"):
        run(coming(), denoiser, finish=broken, gave_up=ended.set, whole=whole)
    assert no_thread_is_left()
