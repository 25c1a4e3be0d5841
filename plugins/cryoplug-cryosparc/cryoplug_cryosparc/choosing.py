"""Choose the External job of a run: a new job, an unfinished job of an earlier run, or none if all is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryoplug.disk.atomic import storage_errors

from cryoplug_cryosparc.endings import failing
from cryoplug_cryosparc.instance import OPEN, ExternalJob, Instance, Source
from cryoplug_cryosparc.records import RECORD_NAME, JobRecord, find_records, new_record

RESULTS = "denoised"
"""Folder of the denoised micrographs inside the job's folder."""
_DESCRIPTION = (
    "Denoised by cryoplug from {source}. For looking and picking; extract particles from the raw micrographs."
)

Note = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """The options of the command line that concern the job."""

    project: str
    """Project, such as ``P3``."""
    workspace: str
    """Workspace, such as ``W1``."""
    source: Source
    """Job and output whose exposures are denoised."""
    title: str
    """Title of a new job."""
    thumbnails: bool
    """Whether the output gets thumbnails of the denoised micrographs."""
    overwrite: bool
    """Whether to make a new job even if an earlier job did the same."""


@dataclass(frozen=True)
class Choice:
    """The job of a run."""

    job: ExternalJob
    """The job."""
    record: JobRecord
    """Record of the command and the input for which the job was made."""
    is_done: bool = False
    """Whether an earlier run has finished the job."""


def choose(instance: Instance, project: Path, asked: Asked, *, command: str, exposures: str, note: Note) -> Choice:
    """Choose a job of an earlier run, or make a new one.

    Parameters
    ----------
    instance
        cryoSPARC.
    project
        Folder of the project.
    asked
        The options that concern the job; its source includes the name of an output.
    command, exposures
        Fingerprints of the command and of the rows of the input; see `JobRecord`.
    note
        Called with each sentence for the user.
    """
    unfinished = []
    for record, job, status in _earlier(instance, project, asked, command):
        if not record.saved:
            unfinished.append((record, job, status))
        elif record.exposures == exposures and not asked.overwrite and not unfinished:
            if status != "completed":
                note(f"the output of {record.job} was saved, but it is {status} in cryoSPARC; marking it as completed")
                job.complete()
            note(f"{record.job} has done this already ({record.begun}); --overwrite makes a new job")
            return Choice(job, record, is_done=True)
    chosen: Choice | None = None
    for record, job, status in unfinished:
        note(f"{record.job}, begun {record.begun} on {record.host}, is {status} in cryoSPARC, but its run has ended")
        if status in OPEN and chosen is None:
            chosen = _noted(job, project, asked, command=command, exposures=exposures, note=note)
            job.log(f"cryoplug goes on here; the run that began {record.begun} on {record.host} ended unexpectedly")
    if chosen is None:
        description = _DESCRIPTION.format(source=asked.source)
        new = instance.create_job(asked.project, asked.workspace, title=asked.title, description=description)
        chosen = _noted(new, project, asked, command=command, exposures=exposures, note=note)
    with failing(chosen.job, note):
        for record, _, _ in unfinished:
            if record.job != chosen.record.job:
                _take_over(project / record.job, project / chosen.record.job)
    if unfinished:
        note(f"going on in {chosen.record.job} with what is finished")
    return chosen


def _earlier(
    instance: Instance, project: Path, asked: Asked, command: str
) -> Iterator[tuple[JobRecord, ExternalJob, str]]:
    for record in find_records(project, command):
        job = instance.find_job(asked.project, record.job)
        if job is not None:
            yield record, job, job.status()


def _noted(job: ExternalJob, project: Path, asked: Asked, *, command: str, exposures: str, note: Note) -> Choice:
    """Write the record of the job into its folder."""
    record = new_record(job.uid, command=command, exposures=exposures, source=str(asked.source))
    with failing(job, note), storage_errors(project / job.uid):
        record.write(project)
    return Choice(job, record)


def _take_over(old: Path, new: Path) -> None:
    """Move the finished files of an ended job into the folder of the new job; no output of cryoSPARC names them yet."""
    with storage_errors(new):
        if (old / RESULTS).is_dir() and not (new / RESULTS).exists():
            (old / RESULTS).rename(new / RESULTS)
        (old / RECORD_NAME).unlink(missing_ok=True)
