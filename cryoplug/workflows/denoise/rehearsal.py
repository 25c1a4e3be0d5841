"""``denoise --dry-run``: find, open and check everything that a run needs, and write nothing."""

from __future__ import annotations

from cryoplug.core.outlook import Expect, Outlook, unwatched
from cryoplug.core.plan import Plan, PlannedNetwork, free_space
from cryoplug.core.results import FileResult
from cryoplug.errors import CryoplugError, InputError, SeveralImagesError, StorageError, UsageError
from cryoplug.formats.registry import open_micrograph, open_movie
from cryoplug.inference.bands.reading import open_source
from cryoplug.inference.bands.sections import refuse_movies_and_volumes
from cryoplug.inference.messages import DenoiseJob
from cryoplug.inference.regrid import Regrid
from cryoplug.inputs.companions import left_out_note
from cryoplug.inputs.pairing import no_halves
from cryoplug.machine.devices import resolved_name
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.outputs.planning import PlannedOutput
from cryoplug.outputs.records import is_finished
from cryoplug.workflows.denoise.finding import find_micrographs
from cryoplug.workflows.denoise.introduction import introduction
from cryoplug.workflows.denoise.request import DenoiseRequest, unsaid
from cryoplug.workflows.denoise.run import output_star
from cryoplug.workflows.denoise.targets import check_names, plan_part, planner_of
from cryoplug.workflows.denoise.work import Note, Progress

_HEADER_BYTES = 1024


def rehearse(
    request: DenoiseRequest,
    progress: Progress = lambda result: None,
    note: Note = lambda text: None,
    *,
    expect: Expect = unwatched,
) -> Plan:
    """Report what `cryoplug.workflows.denoise.denoise` would do now.

    It loads the checkpoint, looks for the device, and reads the header of every micrograph; it reads no pixels.

    Parameters
    ----------
    request
        The request; with ``watch``, only the micrographs that are there now are planned.
    progress
        Called with each micrograph that would be skipped or would fail.
    note, expect
        As for `denoise`.

    Raises
    ------
    CryoplugError
        The error that would end the run before its first micrograph.
    """
    checkpoint = load_checkpoint(request.checkpoint)
    check_names(request)
    star = output_star(request, note, only_look=True)
    for text in introduction(request, checkpoint):
        note(text)
    network = PlannedNetwork(checkpoint.model_id, checkpoint.parameters, resolved_name(request.device_name))
    micrographs, companions = find_micrographs(request)
    if companions:
        note(left_out_note(companions))
    planned = plan_part(request, micrographs, planner_of(request), star)
    free = free_space(request.output)
    expect(Outlook(len(planned)))
    settings, regrid = request.identity(checkpoint), request.regrid(checkpoint)
    to_do, files, needed = [], [], 0
    for item in planned:
        try:
            if request.halves and not item.micrograph.has_halves:
                raise no_halves(item.micrograph)
            if not request.overwrite and is_finished(item, settings, unsaid=unsaid()):
                files.append(FileResult(item.shown, "skipped", item.target, "finished by an earlier run"))
                progress(files[-1])
                continue
            needed += _bytes_of(item, request, regrid)
        except (InputError, StorageError, UsageError) as error:
            files.append(_failed(item, error))
            progress(files[-1])
            continue
        to_do.append(item.shown)
        note(f"would denoise {item.shown} -> {item.target}")
    return Plan(
        tuple(files),
        output=request.output,
        network=network,
        to_do=tuple(to_do),
        needed_bytes=needed,
        free_bytes=free,
    )


def _bytes_of(item: PlannedOutput, request: DenoiseRequest, regrid: Regrid) -> int:
    """Open the micrograph and its halves as the run does, and give the size of the result in bytes."""
    micrograph = item.micrograph
    job = DenoiseJob(
        micrograph.path,
        item.target,
        micrograph.pixel_size_angstrom,
        micrograph.section,
        is_stack=micrograph.is_stack,
        last_section=micrograph.last_section,
        stated_angstrom=request.pixel_size,
    )
    sections = 1
    try:
        with open_source(job) as source:
            shape, in_header = source.shape, source.pixel_size_angstrom
    except SeveralImagesError:
        if not micrograph.is_stack:
            refuse_movies_and_volumes(micrograph.path)
        with open_movie(micrograph.path) as stack:
            shape, in_header, sections = stack.frame_shape, stack.pixel_size_angstrom, stack.frame_count
            job.check_sections(sections)
    for half in (micrograph.even, micrograph.odd) if request.halves else ():
        if half is not None:
            open_micrograph(half).close()
    plan = regrid.plan(shape, job.known_pixel_size(in_header).angstrom, path=micrograph.path)
    rows, columns = plan.written_shape
    return _HEADER_BYTES + sections * rows * columns * (2 if request.float16 else 4)


def _failed(item: PlannedOutput, error: CryoplugError) -> FileResult:
    return FileResult(item.shown, "failed", None, str(error), 0.0, error.exit_code)
