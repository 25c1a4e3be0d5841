"""Measure a checkpoint, or the results of another program, on micrographs with a truth or with halves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cryoplug
from cryoplug.core.outlook import Expect, Outlook, unwatched
from cryoplug.core.pixel_size import PixelSizeRemarks
from cryoplug.core.remarks import joined
from cryoplug.core.results import BatchResult, FileResult, to_json
from cryoplug.disk.atomic import write_text
from cryoplug.disk.output_folder import refuse_file
from cryoplug.errors import FormatError, InputError, Stopped, UsageError
from cryoplug.formats.star import write_star
from cryoplug.machine.interrupts import Interrupts
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.reports.evaluation import Summary, summarize, table
from cryoplug.reports.evaluation_page import JudgedRow, evaluation_page
from cryoplug.reports.html import shown_setting, write_page
from cryoplug.reports.words import verdict_words
from cryoplug.workflows.evaluate.inputs import list_subjects, words_to_denoise
from cryoplug.workflows.evaluate.measure import MeasuredMicrograph, Measurer
from cryoplug.workflows.evaluate.request import EvaluateRequest
from cryoplug.workflows.evaluate.star import evaluation_star

__all__ = ["JSON_NAME", "TEXT_NAME", "EvaluateRequest", "EvaluationResult", "evaluate"]

JSON_NAME = "evaluation.json"
TEXT_NAME = "evaluation.txt"
STAR_NAME = "evaluation.star"
CURVES_NAME = "curves.png"
PANELS_NAME = "panels.png"
PAGE_NAME = "report.html"
EXIT_NOT_BETTER = 1
"""Exit code when a required baseline is not beaten; the same as `inspect` uses for something wrong."""
Note = Callable[[str], None]


@dataclass(frozen=True)
class EvaluationResult(BatchResult):
    """The result of each micrograph, and the means."""

    summary: Summary | None = None
    """Means over all micrographs; None when no micrograph could be measured."""
    page: Path | None = None
    """The page to open in a browser; it shows the same figures as `outputs`."""
    words: tuple[str, ...] = ()
    """The verdict in short sentences, the most important first; empty when no micrograph could be measured."""
    to_denoise: tuple[str, ...] = ()
    """The inputs as the user named them, if `denoise` accepts them for the same micrographs; empty for halves."""

    @property
    def exit_code(self) -> int:
        """The exit code of `BatchResult`; 1 when a required baseline is not beaten."""
        code = super().exit_code
        requirement = None if self.summary is None else self.summary.requirement
        return EXIT_NOT_BETTER if requirement is not None and not requirement.met else code


def evaluate(
    request: EvaluateRequest,
    progress: Callable[[FileResult], None] = lambda result: None,
    note: Note = lambda text: None,
    show: Callable[[dict[str, Any]], None] = lambda record: None,
    *,
    expect: Expect = unwatched,
) -> EvaluationResult:
    """Measure every micrograph and write the means, the records and the figures.

    Parameters
    ----------
    request
        The request.
    progress
        Called with the result of each micrograph.
    note
        Called with each sentence for the user that concerns no single micrograph.
    show
        Called with the record of each micrograph that was measured, after `progress`.
    expect
        Called with the number of micrographs.

    Returns
    -------
    EvaluationResult
        One result per micrograph; one that failed never stops the others.

    Raises
    ------
    UsageError
        The output holds an evaluation and `overwrite` is off, or the files do not allow the requested comparison.
    InputError
        Nothing was found, files do not pair, or the checkpoint cannot be used.
    StorageError
        The output cannot be written.
    DeviceError
        The GPU that was asked for is missing, or memory ran out.
    Stopped
        A signal came; nothing was written.
    """
    check_output(request)
    subjects = list_subjects(request, note)
    expect(Outlook(len(subjects)))
    about: dict[str, Any] = {"software": f"cryoplug {cryoplug.__version__}", "direction": request.direction}
    measurer = _measurer(request, about, note)
    files: list[FileResult] = []
    measured: list[MeasuredMicrograph] = []
    sizes = PixelSizeRemarks()
    with Interrupts() as interrupts:
        for subject in subjects:
            if interrupts.stop_signal is not None:
                raise Stopped(interrupts.stop_signal, "nothing was written; the same command begins again")
            started, record = time.perf_counter(), None
            try:
                found = measurer.measure(subject)
            except InputError as error:
                result = FileResult(subject.name, "failed", message=str(error), exit_code=error.exit_code)
            else:
                seconds = time.perf_counter() - started
                result = FileResult(subject.name, "done", message=joined(found.remarks), seconds=seconds)
                if measured:
                    found.panels.clear()  # Only those of the first micrograph are drawn.
                measured.append(found)
                sizes.add(found.pixel_size)
                record = found.record()
            files.append(result)
            progress(result)
            if record is not None:
                show(record)
    for text in sizes.sentences():
        note(text)
    if not measured:
        return EvaluationResult(tuple(files), details=about)
    summary = _summary(request, measured)
    words = tuple(verdict_words(summary.verdict, denoiser=request.denoiser, target=request.target))
    outputs = _write(request, about, files, measured, summary, words, note)
    return EvaluationResult(
        tuple(files), outputs, about, summary, request.output / PAGE_NAME, words, words_to_denoise(request, subjects)
    )


def check_output(request: EvaluateRequest) -> None:
    """Refuse an output that is a file, or a folder whose evaluation must not be replaced."""
    refuse_file(request.output)
    if (request.output / JSON_NAME).exists() and not request.overwrite:
        raise UsageError(f"{request.output / JSON_NAME}: is there already; choose another folder, or use --overwrite")


def _measurer(request: EvaluateRequest, about: dict[str, Any], note: Note) -> Measurer:
    if request.applied is None:
        about["denoised"] = "given files"
        return Measurer(request, None)
    checkpoint = load_checkpoint(request.applied)
    for text in filter(None, (request.introduction(checkpoint), checkpoint.namesake_note)):
        note(text)
    from cryoplug.inference.denoiser import Denoiser

    if request.max_memory_bytes is not None:
        note("--max-memory does not count the images that are measured, which are all in memory")
    denoiser = Denoiser(checkpoint, request.settings, note=note)
    about.update(
        model=checkpoint.model_id,
        checkpoint=request.applied,
        checkpoint_sha256=checkpoint.sha256,
        normalize=denoiser.normalize,
        target=denoiser.target,
        angpix=denoiser.regrid.angpix,
        tta=denoiser.tta,
        device=str(denoiser.device),
    )
    return Measurer(request, denoiser)


def _summary(request: EvaluateRequest, measured: Sequence[MeasuredMicrograph]) -> Summary:
    # The halves hold the ice, and particles have none: both errors are of different things then.
    comparable = request.target != "particles"
    return summarize(
        [item.found.truth for item in measured if item.found.truth is not None],
        [item.found.halves for item in measured if item.found.halves is not None],
        agreement=[item.found.agreement for item in measured if comparable and item.found.agreement is not None],
        hallucination=[item.found.hallucination for item in measured if item.found.hallucination is not None],
        seams=[item.seam for item in measured if item.seam is not None],
        micrographs=len(measured),
        require_better_than=request.require_better_than,
    )


def _write(
    request: EvaluateRequest,
    about: dict[str, Any],
    files: Sequence[FileResult],
    measured: Sequence[MeasuredMicrograph],
    summary: Summary,
    words: tuple[str, ...],
    note: Note,
) -> tuple[Path, ...]:
    folder = request.output
    records = [{**item.record(), "curves": _curves(item)} for item in measured]
    text = "\n".join([*words, "", table(summary)])
    outputs = [folder / TEXT_NAME]
    write_text(outputs[0], text + "\n")
    try:
        write_star(folder / STAR_NAME, evaluation_star(measured, folder / STAR_NAME))
        outputs.append(folder / STAR_NAME)
    except (FormatError, UsageError) as error:  # a name that STAR cannot hold; the figures stand in the other files
        note(f"{error}; it is left out")
    truth = [item.found.truth for item in measured if item.found.truth is not None]
    halves = [item.found.halves for item in measured if item.found.halves is not None]
    try:
        from cryoplug.reports.evaluation_figures import evaluation_curves, evaluation_panels

        evaluation_curves(folder / CURVES_NAME, truth, halves)
        evaluation_panels(folder / PANELS_NAME, measured[0].panels, measured[0].name.name)
        outputs += [folder / CURVES_NAME, folder / PANELS_NAME]
    except UsageError as error:
        note(str(error))
    facts = [(_LABELS.get(name, name), shown_setting(value)) for name, value in about.items() if value is not None]
    page = evaluation_page(folder, words, summary, _rows(files, measured), measured[0].panels, about=facts)
    write_page(folder / PAGE_NAME, page)
    # Last, since its presence says that the evaluation is complete.
    outputs.insert(0, folder / JSON_NAME)
    write_text(
        outputs[0],
        to_json({**about, "words": words, "summary": summary, "micrographs": records}) + "\n",
    )
    return tuple(outputs)


_LABELS = {
    "direction": "half that was denoised",
    "model": "network",
    "checkpoint_sha256": "checkpoint (SHA-256)",
    "normalize": "normalization",
    "angpix": "pixel size that the network sees (Å)",
    "tta": "mean of eight orientations",
}


def _rows(files: Sequence[FileResult], measured: Sequence[MeasuredMicrograph]) -> list[JudgedRow]:
    """Give a row for each file; measured micrographs keep their order."""
    left = iter(measured)
    rows = []
    for result in files:
        item = next(left) if result.status == "done" else None
        rows.append(
            JudgedRow(
                str(result.input),
                result.status,
                result.message,
                None if item is None else item.found.truth,
                None if item is None else item.found.halves,
                None if item is None else item.pixel_size_angstrom,
            )
        )
    return rows


def _curves(item: MeasuredMicrograph) -> dict[str, Any]:
    """Give the curves of one micrograph up to 0.5 cycles per pixel, with five digits."""
    curves: dict[str, Any] = {}
    if item.found.truth is not None:
        frc = {method: _digits(curve) for method, curve in item.found.truth.frc.items()}
        curves["truth"] = {"frequency": _digits(item.found.truth.frequency), "frc": frc}
    if item.found.halves is not None:
        shown = slice(1, int(np.searchsorted(item.found.halves.frequency, 0.5 + 1e-9)))
        names = ("error", "bias", "noise_left", "snr", "truth_correlation", "correlation")
        curves["halves"] = {
            "frequency": _digits(item.found.halves.frequency[shown]),
            "signal": _digits(item.found.halves.rings["identity"].signal[shown]),  # type: ignore[index]
            "raw_frc": _digits(item.found.halves.rings["identity"].raw_correlation[shown]),  # type: ignore[index]
            **{
                method: {name: _digits(getattr(moments, name)[shown]) for name in names}
                for method, moments in item.found.halves.rings.items()
            },
        }
    return curves


def _digits(curve: Any) -> list[float]:
    return [float(f"{value:.5g}") for value in np.asarray(curve)]
