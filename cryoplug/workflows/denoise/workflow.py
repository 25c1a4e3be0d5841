"""Denoise micrographs with a checkpoint; write denoised MRC files, a journal and a STAR file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cryoplug.core.outlook import Expect, unwatched
from cryoplug.core.results import BatchResult
from cryoplug.disk.claims import Claims
from cryoplug.errors import InputError, UsageError
from cryoplug.machine.interrupts import Interrupts
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.workflows.denoise.introduction import introduction
from cryoplug.workflows.denoise.request import DenoiseRequest
from cryoplug.workflows.denoise.run import DenoiseRun, output_star
from cryoplug.workflows.denoise.shards import merge_journals, read_shards
from cryoplug.workflows.denoise.targets import check_names
from cryoplug.workflows.denoise.work import Note, Progress, Sibling

__all__ = ["DenoiseRequest", "denoise", "merge"]


def denoise(
    request: DenoiseRequest,
    progress: Progress = lambda result: None,
    note: Note = lambda text: None,
    *,
    sibling: Sibling | None = None,
    expect: Expect = unwatched,
    starts_processes: bool = False,
) -> BatchResult:
    """Denoise every micrograph that is not finished yet; with ``watch``, also those that arrive later.

    Several processes, also on several machines, may share one output folder; each micrograph is done by one of them.

    Parameters
    ----------
    request
        What to do.
    progress
        Called with each `FileResult` when it is ready; from one thread at a time, not always the same one.
    note
        Called with each sentence for the user that concerns no single file; from any thread.
    sibling
        Only for the processes of one run; see `cryoplug.workflows.denoise.work.Sibling`.
    expect
        Called with the number of micrographs, and with what a run that watches waits for.
    starts_processes
        Whether several processes may share a GPU where that pays, if the request does not say how many. Each of them imports
        the program that runs once more. A command can bear that; a script may not.

    Returns
    -------
    BatchResult
        One record per micrograph, in input order; one that failed never stops the others. ``outputs`` holds the STAR
        file; ``details["left_out"]`` names the micrographs that are not in it because they failed.

    Raises
    ------
    UsageError
        An output would overwrite an input, or options contradict each other; nothing was started.
    InputError
        Nothing to denoise was found, or the checkpoint cannot be used.
    StorageError
        The output cannot be written, or writing failed; finished micrographs are safe.
    DeviceError
        The GPU that was asked for is missing, or memory ran out.
    Stopped
        SIGINT or SIGTERM came. The unfinished file was dropped; the same command goes on. SIGUSR1 does not end a run:
        everything finished is already on the disk.
    """
    with Interrupts() as interrupts, Claims() as claims:
        checkpoint = load_checkpoint(request.checkpoint)
        check_names(request)
        star = output_star(request, note)
        # Processes of one run: the one that began them has said it.
        for text in introduction(request, checkpoint) if sibling is None else ():
            note(text)
        run = DenoiseRun(
            request,
            checkpoint,
            star,
            interrupts,
            claims,
            progress,
            note,
            sibling,
            expect,
            denoise,
            starts_processes=starts_processes,
        )
        if request.shard is not None and sibling is None:
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
        STAR file to write; None: the one that the shards name, if any.
    overwrite
        Replace a STAR file even if no earlier run wrote it.
    progress, note, expect
        As for `denoise`.

    Returns
    -------
    BatchResult
        Result of all micrographs, as from `denoise`.

    Raises
    ------
    InputError
        A shard is missing or unfinished, or a micrograph is not denoised because the list has grown since; the message
        names it.
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
