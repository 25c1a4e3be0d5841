"""The denoise job: take the exposures of a job, and make an External job with denoised micrographs."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryoplug.cli.denoised import summarize
from cryoplug.cli.output import echo_result, say
from cryoplug.cli.progress import file_progress
from cryoplug.core.results import EXIT_PARTIAL, BatchResult, FileResult
from cryoplug.disk.atomic import write_bytes
from cryoplug.errors import CryoplugError, InputError, Stopped, StorageError
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.models.shipped import is_general
from cryoplug.outputs.cs_file import USUAL_NAME
from cryoplug.outputs.planning import check_writable
from cryoplug.workflows.denoise import DenoiseRequest, denoise

from cryoplug_cryosparc.choosing import RESULTS, Asked, Choice, choose
from cryoplug_cryosparc.endings import failing, stoppable
from cryoplug_cryosparc.errors import EndedThereError, JobGoneError
from cryoplug_cryosparc.instance import ACTIVE, OUTPUT, ExternalJob, Instance, Source
from cryoplug_cryosparc.job_log import JobLog
from cryoplug_cryosparc.pictures import show_pictures
from cryoplug_cryosparc.records import fingerprint, only_run_of
from cryoplug_cryosparc.results import DENOISED_SLOT, fill, output_slots
from cryoplug_cryosparc.thumbnails import Thumbnail, Thumbnails
from cryoplug_cryosparc.tools import dataset_bytes, load_dataset

INPUT_NAME = "cryoplug_input.cs"
"""File in the job's folder: the exposures as they were when the run began."""


def denoise_exposures(
    *,
    project: str,
    workspace: str,
    exposures: str,
    url: str | None,
    title: str,
    thumbnails: bool,
    as_json: bool,
    **fields: Any,
) -> int:
    """Denoise the exposures of a job into an External job.

    Parameters
    ----------
    project, workspace, exposures, url, title, thumbnails
        See the options of the command.
    as_json
        Write records to stdout.
    fields
        Further fields of `DenoiseRequest`.

    Returns
    -------
    int
        0, or 3 when some micrographs failed; these are named and left out of the output.
    """
    asked = Asked(project, workspace, Source.parse(exposures), title, thumbnails, bool(fields["overwrite"]))
    fields = {name: _from_here(value) for name, value in fields.items()}
    request = DenoiseRequest(inputs=(INPUT_NAME,), output=Path(RESULTS), **fields)
    with stoppable():
        instance = Instance(url, _note)
        folder = instance.folder(project)
        with contextlib.chdir(folder):
            return _in_project(instance, folder, asked, request, as_json=as_json)


def _from_here(value: Any) -> Any:
    """Make a path absolute, because the work is done in the project's folder, where cryoSPARC's paths start."""
    return value.absolute() if isinstance(value, Path) and not is_general(value) else value


def _in_project(instance: Instance, folder: Path, asked: Asked, request: DenoiseRequest, *, as_json: bool) -> int:
    source, dataset = instance.exposures(asked.project, asked.source)
    asked = replace(asked, source=source)
    rows = dataset_bytes(dataset)
    pixels = request.identity(load_checkpoint(request.checkpoint))
    place = {"project": asked.project, "workspace": asked.workspace, "source": str(source)}
    command = fingerprint({**pixels, **place})
    with only_run_of(folder, command):
        choice = choose(instance, folder, asked, command=command, exposures=fingerprint(rows), note=_note)
        if choice.is_done:
            _report(asked, choice, as_json=as_json)
            return 0
        with failing(choice.job, _urgent):
            code = _in_job(choice.job, asked, rows, request, total=len(dataset), as_json=as_json)
            choice.record.with_output().write(folder)
            choice.job.complete()
        _report(asked, choice, as_json=as_json)
        return code


def _in_job(job: ExternalJob, asked: Asked, rows: bytes, request: DenoiseRequest, *, total: int, as_json: bool) -> int:
    folder = Path(job.uid)
    results = folder / RESULTS
    check_writable(results)
    job.prepare(asked.source, output_slots(thumbnails=asked.thumbnails))
    if job.status() not in ACTIVE:
        job.start()
    write_bytes(folder / INPUT_NAME, rows)
    request = replace(request, inputs=(str(folder / INPUT_NAME),), output=results)
    thumbnails = Thumbnails(folder, results) if asked.thumbnails else None
    batch = _denoised(job, request, thumbnails, total=total, as_json=as_json)
    summarize(batch, results, as_json=as_json)
    if batch.exit_code not in (0, EXIT_PARTIAL):
        error = InputError(f"{asked.source}: no micrograph could be denoised; the lines above say why")
        error.exit_code = batch.exit_code
        raise error
    denoised = load_dataset(results / USUAL_NAME)
    small = _thumbnails_of(denoised, thumbnails)
    output = job.empty_output(denoised)
    unknown = fill(output, denoised, small, thumbnails)
    if unknown:
        job.log(f"cryoplug does not know these columns, and left them empty: {', '.join(unknown)}", "warning")
    larger = {path: folder / item.path("2x") for path, item in small.items()}
    show_pictures(job, denoised, larger, stated_angstrom=request.pixel_size, note=_urgent)
    job.save(output)
    return batch.exit_code


def _denoised(
    job: ExternalJob, request: DenoiseRequest, thumbnails: Thumbnails | None, *, total: int, as_json: bool
) -> BatchResult:
    """Denoise, and report on stderr, on stdout and in the job's log."""
    log = JobLog(job, total, _urgent)
    problems: list[CryoplugError] = []

    def note(text: str) -> None:
        _note(text)
        log.line(text)

    with file_progress("denoise") as show:

        def tell(result: FileResult) -> None:
            # In the thread that wrote it, while its pixels are in memory and the next one is computed.
            if thumbnails is not None and result.status == "done" and result.output is not None and not problems:
                try:
                    thumbnails.make(result.output)
                except (InputError, StorageError) as error:
                    problems.append(error)
            show(result)
            log.file(result)
            if as_json:
                echo_result(result, as_json=True)

        try:
            batch = denoise(request, tell, note)
        except Stopped:
            if log.ended_by == "deleted":
                raise JobGoneError(f"job {job.uid} was deleted in cryoSPARC; run again to make a new job") from None
            if log.ended_by is not None:
                raise EndedThereError(
                    f"job {job.uid} was ended in cryoSPARC (it is {log.ended_by}); the same command goes on with what is "
                    f"finished in {request.output}"
                ) from None
            raise
        finally:
            log.close()
    if problems:
        raise problems[0]
    return batch


def _thumbnails_of(denoised: Any, thumbnails: Thumbnails | None) -> dict[str, Thumbnail]:
    """Give the thumbnail of each denoised micrograph, by its path from the project."""
    if thumbnails is None:
        return {}
    return {str(path): thumbnails.of(Path(str(path))) for path in denoised[f"{DENOISED_SLOT}/path"]}


def _report(asked: Asked, choice: Choice, *, as_json: bool) -> None:
    uid = choice.job.uid
    record = {"project": asked.project, "job": uid, "output": OUTPUT, "status": "completed"}
    text = f"{asked.project} {uid}: completed; its output {OUTPUT} has the slot {DENOISED_SLOT}"
    echo_result(record, as_json=as_json, text=text)


def _note(text: str) -> None:
    say(f"cryosparc: {text}")


def _urgent(text: str) -> None:
    """Print a message that is shown even with ``--quiet``."""
    say(f"cryosparc: {text}", urgent=True)
