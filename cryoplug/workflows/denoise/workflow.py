"""Denoise: micrographs and a checkpoint in, denoised MRC files, a journal and a STAR file out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cryoplug.core.outlook import Expect, unwatched
from cryoplug.core.results import BatchResult
from cryoplug.disk.claims import Claims
from cryoplug.errors import InputError, UsageError
from cryoplug.machine.interrupts import Interrupts
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.workflows.denoise.request import DenoiseRequest
from cryoplug.workflows.denoise.run import DenoiseRun, output_star
from cryoplug.workflows.denoise.shards import merge_journals, read_shards
from cryoplug.workflows.denoise.targets import check_names
from cryoplug.workflows.denoise.work import Note, Progress, RecordsBefore

__all__ = ["DenoiseRequest", "denoise", "merge"]


def denoise(
    request: DenoiseRequest,
    progress: Progress = lambda result: None,
    note: Note = lambda text: None,
    *,
    before: RecordsBefore | None = None,
    expect: Expect = unwatched,
) -> BatchResult:
    """Denoise every micrograph that is not finished yet; with ``watch``, also those that are still to come.

    Several processes, also of several machines, may work into one output folder: each micrograph is done by one of them.

    Parameters
    ----------
    request
        What to do.
    progress
        Called with each `FileResult` as it comes, from one thread at a time, though not always the same one.
    note
        Called with a sentence that is worth telling and belongs to no single file; from any thread.
    before
        For processes of one run; see `cryoplug.workflows.denoise.work.RecordsBefore`.
    expect
        Told how many micrographs there are, and what a run that watches waits for.

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
        The output cannot be written, or writing failed; what was finished before is safe.
    DeviceError
        The GPU that was asked for is missing, or memory ran out.
    Stopped
        SIGINT or SIGTERM came; the file in work was dropped, the same command goes on. SIGUSR1 ends nothing: there is
        nothing to save that is not on the disk already.
    """
    with Interrupts() as interrupts, Claims() as claims:
        checkpoint = load_checkpoint(request.checkpoint)
        check_names(request)
        star = output_star(request, note)
        # Processes of one run: the one that began them has said it.
        introduction = (request.introduction(checkpoint), checkpoint.namesake_note) if before is None else ()
        for text in filter(None, introduction):
            note(text)
        run = DenoiseRun(request, checkpoint, star, interrupts, claims, progress, note, before, expect, denoise)
        if request.shard is not None and before is None:
            return run.shard(request.shard)
        return run.watch() if request.watch else run.batch()


def merge(
    output: Path,
    *,
    star: Path | None = None,
    overwrite: bool = False,
    progress: Progress = lambda result: None,
    note: Note = lambda text: None,
    expect: Expect = unwatched,
) -> BatchResult:
    """Join the shards of a denoise run: one STAR file, one journal, one page; nothing is computed.

    Parameters
    ----------
    output
        The output folder of all shards.
    star
        STAR file to write; None: the one that the shards were asked for, if any.
    overwrite
        Replace a STAR file that no earlier run wrote.
    progress, note, expect
        As for `denoise`.

    Returns
    -------
    BatchResult
        As of `denoise` for all micrographs.

    Raises
    ------
    InputError
        A shard is missing or unfinished, or a micrograph is not denoised, because the list has grown since; it says which.
    """
    records = read_shards(output)
    first = records[0]
    if not Path(first.folder).is_dir() or not Path.cwd().samefile(first.folder):
        raise UsageError(f"the shards ran in {first.folder}; change to that folder and merge there")
    request = replace(first.request, output=output, star=star or first.request.star, overwrite=overwrite)
    with Interrupts() as interrupts, Claims() as claims:
        checkpoint = load_checkpoint(request.checkpoint)
        if checkpoint.sha256 != first.checkpoint_sha256:
            raise InputError(
                f"{request.checkpoint}: other weights than the shards had; put those back, or denoise again"
            )
        check_names(request)
        run = DenoiseRun(
            request,
            checkpoint,
            output_star(request, note),
            interrupts,
            claims,
            progress,
            note,
            None,
            expect,
            denoise,
            merges=True,
        )
        batch = run.batch({item.input: item for record in records for item in record.failed})
        merge_journals(output, [record.shard for record in records])
        return batch
