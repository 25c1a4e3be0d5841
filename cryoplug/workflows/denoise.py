"""Denoise: micrographs and a checkpoint in, denoised MRC files and a STAR file out."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import cryoplug
from cryoplug.core.normalization import KINDS
from cryoplug.core.results import BatchResult, FileResult
from cryoplug.errors import InputError, Stopped, UsageError
from cryoplug.formats.mrc import read_header
from cryoplug.formats.star import read_star
from cryoplug.inference.pipeline import DenoiseJob, run_pipeline
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint
from cryoplug.workflows.discovery import DiscoveredMicrograph, discover
from cryoplug.workflows.outputs import (
    RECORD_FOLDER,
    PlannedOutput,
    Settings,
    begin_output,
    check_no_input,
    is_finished,
    new_record,
    plan_outputs,
    without_own_outputs,
    write_record,
)
from cryoplug.workflows.star_output import (
    DenoisedMicrograph,
    check_star_is_ours,
    star_from_files,
    star_from_star,
    write_own_star,
)

Progress = Callable[[FileResult], None]
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class DenoiseRequest:
    """What to denoise, with what, and where to."""

    inputs: tuple[str, ...]
    """Files, folders, patterns and STAR files."""
    checkpoint: Path
    """Run folder, ``epoch_NNNN`` folder or founding folder."""
    output: Path
    """Folder for the denoised MRC files; made when missing."""
    star: Path | None = None
    """STAR file to write; None: none."""
    normalize: str | None = None
    """``percentile``, ``zscore`` or ``none``; None takes the checkpoint's own."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    tile: int = 0
    """Side of a tile in pixels; 0 chooses."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""
    overwrite: bool = False
    """Redo finished files, and replace files that came about in another way."""

    def __post_init__(self) -> None:
        problems = []
        if not self.inputs:
            problems.append("no input (allowed: files, folders, patterns, STAR files)")
        if self.normalize is not None and self.normalize not in KINDS:
            problems.append(f"--normalize {self.normalize!r} (allowed: {', '.join(KINDS)})")
        if self.tile < 0:
            problems.append(f"--tile {self.tile} (allowed: 0 for automatic, or a side in pixels)")
        if self.threads < 0:
            problems.append(f"--threads {self.threads} (allowed: 0 for all cores, or a number)")
        if problems:
            raise UsageError("; ".join(problems))


def denoise(request: DenoiseRequest, progress: Progress = lambda result: None) -> BatchResult:
    """Denoise every micrograph that is not finished yet.

    Parameters
    ----------
    request
        What to do.
    progress
        Called with each `FileResult` as it comes, from one thread at a time, though not always the same one.

    Returns
    -------
    BatchResult
        One record per micrograph, in input order; one that failed never stops the others. ``outputs`` holds the STAR
        file; ``details["left_out"]`` names the micrographs that are not in it because they failed.

    Raises
    ------
    UsageError
        An output would overwrite an input, or the options contradict each other: nothing was begun.
    InputError
        Nothing to denoise was found, or the checkpoint cannot be used.
    StorageError
        Writing failed; what was finished before is safe.
    DeviceError
        The GPU that was asked for is missing, or memory ran out.
    Stopped
        SIGINT, SIGTERM or SIGUSR1 came; the file in work was dropped, the same command goes on.
    """
    checkpoint = load_checkpoint(request.checkpoint)
    if request.output.exists() and not request.output.is_dir():
        raise UsageError(f"{request.output}: this is a file; -o names the folder for the denoised micrographs")
    found = discover(request.inputs)
    micrographs = without_own_outputs(found, request.output, named=request.inputs)
    if not micrographs:
        raise InputError(f"{request.output}: everything that was found is a result of an earlier run; name raw files")
    planned = plan_outputs(micrographs, request.output)
    star_input = _check_star(request, planned)
    settings = Settings(checkpoint.sha256, request.normalize or checkpoint.normalize)
    results = _triage(planned, settings, request=request)
    for result in results.values():
        progress(result)
    todo = [index for index in range(len(planned)) if index not in results]
    details: dict[str, object] = {
        "model": checkpoint.model_id,
        "checkpoint_sha256": checkpoint.sha256,
        "normalize": settings.normalize,
    }
    if todo:
        details["device"] = _run(request, checkpoint, planned, todo, settings, results, progress)
    files = tuple(results[index] for index in range(len(planned)))
    outputs: tuple[Path, ...] = ()
    if request.star is not None and any(item.status != "failed" for item in files):
        outputs = (request.star,)
        details["left_out"] = [str(item.input) for item in files if item.status == "failed"]
        _write_star(request.star, _star_record(request), star_input, planned, files)
    return BatchResult(files, outputs, details)


def _triage(planned: Sequence[PlannedOutput], settings: Settings, *, request: DenoiseRequest) -> dict[int, FileResult]:
    """Say by index which micrographs are finished, and which must not be written."""
    results: dict[int, FileResult] = {}
    if request.overwrite:
        return results
    for index, item in enumerate(planned):
        try:
            if is_finished(item, settings):
                message = "finished by an earlier run; --overwrite redoes it"
                results[index] = FileResult(item.micrograph.path, "skipped", item.target, message)
        except UsageError as error:
            results[index] = FileResult(item.micrograph.path, "failed", None, str(error), 0.0, error.exit_code)
    return results


def _run(
    request: DenoiseRequest,
    checkpoint: Checkpoint,
    planned: Sequence[PlannedOutput],
    todo: Sequence[int],
    settings: Settings,
    results: dict[int, FileResult],
    progress: Progress,
) -> str:
    """Denoise the micrographs `todo`, add to `results`, return the device."""
    jobs = [
        DenoiseJob(planned[index].micrograph.path, planned[index].target, planned[index].micrograph.pixel_size_angstrom)
        for index in todo
    ]
    index_of = {job.target: index for job, index in zip(jobs, todo, strict=True)}
    # Taken before anything is read: a micrograph that changes meanwhile is redone by the next run.
    records = {index: new_record(planned[index], settings) for index in todo}

    def begin(job: DenoiseJob) -> None:
        index = index_of[job.target]
        begin_output(planned[index], records[index])

    def finish(job: DenoiseJob, result: FileResult) -> None:
        index = index_of[job.target]
        if result.status == "done":
            size_bytes = job.target.stat().st_size
            write_record(planned[index].record, replace(records[index], finished=True, output_size_bytes=size_bytes))
        results[index] = result
        progress(result)

    with _stop_signals() as caught:
        from cryoplug.inference.denoiser import Denoiser

        denoiser = Denoiser(
            checkpoint,
            device=request.device,
            normalize=settings.normalize,
            tile=request.tile,
            threads=request.threads,
        )
        label = f"cryoplug {cryoplug.__version__} {checkpoint.model_id} sha256:{checkpoint.sha256[:12]}"
        complete = run_pipeline(
            jobs, denoiser, label=label, begin=begin, finish=finish, should_stop=lambda: bool(caught)
        )
    if not complete:
        done = sum(result.status != "failed" for result in results.values())
        raise Stopped(
            caught[0],
            f"{done} of {len(planned)} micrographs are finished in {request.output}; the same command goes on",
        )
    return str(denoiser.device)


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect signals that ask for an end, instead of dying of them; only the main thread can."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def catch(number: int, _frame: FrameType | None) -> None:
        caught.append(number)

    before = {number: signal.signal(number, catch) for number in _STOP_SIGNALS}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _star_record(request: DenoiseRequest) -> Path:
    assert request.star is not None
    return request.output / RECORD_FOLDER / f"{request.star.name}.sha256"


def _check_star(request: DenoiseRequest, planned: Sequence[PlannedOutput]) -> Path | None:
    """Return the STAR file that the new one is made from, if any; refuse what would overwrite something."""
    micrographs: list[DiscoveredMicrograph] = [item.micrograph for item in planned]
    stars = list(dict.fromkeys(item.star_path for item in micrographs))
    if request.star is None:
        return None
    if len(stars) > 1:
        named = ", ".join(str(path) for path in stars if path is not None)
        raise UsageError(
            f"--star {request.star}: it is made from one STAR file ({named} and other inputs were named); "
            "give one STAR file alone, or no STAR file"
        )
    inputs = [item.path for item in micrographs] + [path for path in stars if path is not None]
    check_no_input([request.star], inputs)
    if request.star.absolute() in {item.target.absolute() for item in planned}:
        raise UsageError(f"--star {request.star}: this is the name of a denoised micrograph; choose another name")
    check_star_is_ours(request.star, _star_record(request), overwrite=request.overwrite)
    return stars[0]


def _write_star(
    path: Path, record: Path, source: Path | None, planned: Sequence[PlannedOutput], files: Sequence[FileResult]
) -> None:
    good = [item for item, result in zip(planned, files, strict=True) if result.status != "failed"]
    if source is not None:
        rows = {item.micrograph.star_row: item.target for item in good if item.micrograph.star_row is not None}
        star = star_from_star(read_star(source), rows)
    else:
        star = star_from_files(
            path,
            [
                DenoisedMicrograph(item.micrograph.path, item.target, read_header(item.target).pixel_size_angstrom)
                for item in good
            ],
        )
    write_own_star(path, record, star)
