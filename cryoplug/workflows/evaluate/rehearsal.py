"""``evaluate --dry-run``: find, open and check everything that an evaluation needs, and write nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryoplug.core.outlook import Expect, Outlook, unwatched
from cryoplug.core.plan import Plan, PlannedNetwork, free_space
from cryoplug.core.results import FileResult
from cryoplug.errors import InputError
from cryoplug.inference.regrid import Regrid
from cryoplug.inference.target import choose_target
from cryoplug.inputs.pair_proof import PairProof
from cryoplug.machine.devices import resolved_name
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.workflows.evaluate.headers import Headers, open_halves
from cryoplug.workflows.evaluate.inputs import FILES, Subject, list_subjects
from cryoplug.workflows.evaluate.request import EvaluateRequest
from cryoplug.workflows.evaluate.workflow import JSON_NAME, PAGE_NAME, STAR_NAME, TEXT_NAME, Note, check_output

_WORDS = {
    "clean": "its truth",
    "even": "its even half",
    "odd": "its odd half",
    "denoised": "its denoised file",
    "denoised_even": "its denoised even half",
    "denoised_odd": "its denoised odd half",
}


def rehearse(
    request: EvaluateRequest,
    progress: Callable[[FileResult], None] = lambda result: None,
    note: Note = lambda text: None,
    *,
    expect: Expect = unwatched,
) -> Plan:
    """Report what `cryoplug.workflows.evaluate.evaluate` would do now.

    It loads the checkpoint, looks for the device, and reads the header of every file; it reads no pixels.

    Parameters
    ----------
    request
        The request.
    progress
        Called with each micrograph that would fail.
    note, expect
        As for `evaluate`.

    Raises
    ------
    CryoplugError
        The error that would end the run before its first micrograph.
    """
    check_output(request)
    subjects = list_subjects(request, note)
    network, regrid = _network(request, note)
    free = free_space(request.output)
    expect(Outlook(len(subjects)))
    proof = PairProof(halves=True, accept_unproven=request.accept_unproven)
    to_do: list[Path] = []
    failed: list[FileResult] = []
    for subject in subjects:
        try:
            _look(subject, request, proof, regrid)
        except InputError as error:
            failed.append(FileResult(subject.name, "failed", message=str(error), exit_code=error.exit_code))
            progress(failed[-1])
            continue
        to_do.append(subject.name)
        partners = [words for name, words in _WORDS.items() if _is_another(subject, name)]
        note(f"would judge {subject.name} with {' and '.join(partners)}")
    writes = (JSON_NAME, TEXT_NAME, STAR_NAME, PAGE_NAME)
    return Plan(
        tuple(failed), output=request.output, writes=writes, network=network, to_do=tuple(to_do), free_bytes=free
    )


def _network(request: EvaluateRequest, note: Note) -> tuple[PlannedNetwork | None, Regrid | None]:
    if request.applied is None:
        return None, None
    checkpoint = load_checkpoint(request.applied)
    for text in filter(None, (request.introduction(checkpoint), checkpoint.namesake_note)):
        note(text)
    choose_target(request.target, checkpoint)
    network = PlannedNetwork(checkpoint.model_id, checkpoint.parameters, resolved_name(request.device))
    return network, request.regrid(checkpoint)


def _look(subject: Subject, request: EvaluateRequest, proof: PairProof, regrid: Regrid | None) -> None:
    """Open the files of a micrograph as the run does."""
    if subject.problem is not None:
        raise subject.problem
    headers = Headers(request.pixel_size)
    for name in FILES:
        item = getattr(subject, name)
        if item is not None:
            with headers.opened(item):
                pass
    if subject.even is not None:
        with open_halves(subject, proof, request.pixel_size):
            pass
    if regrid is not None and headers.first is not None:
        regrid.plan(headers.shape, headers.pixel_size.angstrom, path=headers.first)


def _is_another(subject: Subject, name: str) -> bool:
    """Tell whether a micrograph has this kind of file, and is named after another one."""
    item = getattr(subject, name)
    return item is not None and item.shown != subject.name
