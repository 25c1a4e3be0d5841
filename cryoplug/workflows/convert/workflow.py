"""convert: micrographs in, a store of noisy/clean training pairs out; bounded memory, and safe to kill at any moment."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable

import numpy as np

from cryoplug.core.outlook import Expect, Outlook, unwatched
from cryoplug.core.results import BatchResult, FileResult
from cryoplug.errors import FormatError, UsageError
from cryoplug.inputs.movies.gain_of_run import RunGain
from cryoplug.inputs.pairing import PairedInput
from cryoplug.machine.interrupts import Interrupts
from cryoplug.models.shipped import is_there
from cryoplug.store import raw
from cryoplug.store.manifest import Manifest
from cryoplug.store.pairs import HDF5_NAME, create_store, finished_files, finished_manifest
from cryoplug.workflows.convert.grey_scales import with_normalization
from cryoplug.workflows.convert.inputs import ConvertInputs, list_inputs
from cryoplug.workflows.convert.patch_fit import with_fitting_patches
from cryoplug.workflows.convert.request import ConvertRequest
from cryoplug.workflows.convert.run import ConvertRun, Progress, pick_test_micrographs, store_details, store_outputs

__all__ = ["ConvertRequest", "convert", "list_inputs", "pick_test_micrographs"]


def convert(
    request: ConvertRequest,
    progress: Progress = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
    *,
    expect: Expect = unwatched,
) -> BatchResult:
    """Write the store that the request asks for, or find it complete.

    After a kill, the same request goes on after the last complete micrograph (bins) or starts again (HDF5); the result is the
    same to the byte. A bad micrograph is recorded, and the others go on. SIGTERM and SIGINT discard the micrograph being
    processed, and stop. SIGUSR1 writes complete micrographs safely to disk, and the work goes on.

    Parameters
    ----------
    request
        What to do.
    progress
        Called with each micrograph's result, in the order of the inputs.
    note
        Called with remarks that do not belong to a single micrograph.
    expect
        Called with the number of micrographs.

    Returns
    -------
    BatchResult
        ``details`` has ``train``, ``test`` (pairs), ``normalize``, ``patches_per_s`` (of this run) and ``fingerprint``.

    Raises
    ------
    UsageError
        The output holds another store and ``overwrite`` is off, or the output is one of the inputs.
    PairingError
        The two lists of files do not fit together, or two halves do not show the same exposure.
    StorageError
        Writing failed; finished micrographs stay for the next run.
    OutputBusyError
        Another live process writes this output.
    Stopped
        A signal came; finished micrographs stay for the next run.
    """
    with Interrupts() as interrupts:
        return _convert(request, progress, note, expect, interrupts)


def _convert(
    request: ConvertRequest,
    progress: Progress,
    note: Callable[[str], None],
    expect: Expect,
    interrupts: Interrupts,
) -> BatchResult:
    request, inputs, head = prepared(request, note, expect)
    if not request.overwrite:
        complete = complete_already(request, head, inputs, progress)
        if complete is not None:
            return complete
    elif request.format == "bin":
        raw.finish_interrupted(request.target)
    gain = RunGain(request.gain, request.defects)
    with create_store(request.output, head, request.format, overwrite=request.overwrite) as writer:
        run = ConvertRun(request, inputs, writer, progress, interrupts)
        result = run.run(gain)
    for text in run.pixel_sizes.sentences():
        note(text)
    return result


def prepared(
    request: ConvertRequest, note: Callable[[str], None], expect: Expect
) -> tuple[ConvertRequest, ConvertInputs, Manifest]:
    """Find the inputs, decide all open choices of the request, and give the head of the store's manifest."""
    inputs = list_inputs(request)
    pairs = inputs.pairs
    expect(Outlook(len(pairs)))
    for text in inputs.notes:
        note(text)
    if request.pairs == "single" and not is_there():
        note(
            "this build has no general model, which would compare the noise of each exposure with places without particles"
        )
    request = with_fitting_patches(request, pairs)
    request = with_normalization(request, pairs, note)
    _refuse_to_touch_inputs(request, pairs)
    _refuse_other_format(request)
    head = Manifest(
        patch_shape=(request.patch_px, request.patch_px),
        dtype=request.dtype,
        pairs=request.pairs,
        normalize=request.kind,
        seed=request.seed,
        stride=request.patch_px if request.store == "whole" else request.stride_px,
        software=_software(),
        request=request.identity(pairs, inputs.exposures if inputs.exposures_repeat else ()),
        whole=request.store == "whole",
        inputs=inputs.to_denoise,
    )
    return request, inputs, head


def complete_already(
    request: ConvertRequest, head: Manifest, inputs: ConvertInputs, progress: Progress
) -> BatchResult | None:
    """Give the result of a finished run of the same request, or None. If another store is there, raise an error."""
    try:
        manifest = finished_manifest(request.target, request.format)
    except FormatError as error:
        raise UsageError(f"{error}; it is in the way: give --overwrite to replace it, or another output") from error
    if manifest is None:
        found = finished_files(request.target, request.format)
        if found:
            raise UsageError(f"{found[0]}: exists already; give --overwrite to replace it, or another output")
        return None
    asked = dict(head.request)
    differing = sorted(name for name in {*asked, *manifest.request} if asked.get(name) != manifest.request.get(name))
    if differing:
        raise UsageError(
            f"{request.target}: holds a finished store made with other {', '.join(differing)}; "
            "give --overwrite to redo it, or another output"
        )
    failures = {item.index: item for item in manifest.failures}
    files = []
    for pair in inputs.pairs:
        failure = failures.get(pair.index)
        if failure is None:
            result = FileResult(pair.noisy.shown, "skipped", request.target, "already complete")
        else:
            result = FileResult(pair.noisy.shown, "failed", None, failure.message, exit_code=failure.exit_code)
        files.append(result)
        progress(result)
    return BatchResult(
        tuple(files), outputs=store_outputs(request), details={**store_details(manifest, inputs), "complete": True}
    )


def _refuse_other_format(request: ConvertRequest) -> None:
    # Two stores in one folder: nobody could say which one a reader means.
    if request.format == "bin":
        other = request.target / HDF5_NAME
    elif request.target != request.output:
        other = request.target.parent / raw.MANIFEST_NAME
    else:
        return
    if other.is_file():
        raise UsageError(f"{other}: a store of the other format is in this folder; choose another output")


def _refuse_to_touch_inputs(request: ConvertRequest, pairs: tuple[PairedInput, ...]) -> None:
    names = (raw.MANIFEST_NAME, *(name for pair in raw.BIN_NAMES.values() for name in pair))
    written = {request.target} if request.format == "hdf5" else {request.target / name for name in names}
    # os.path and not Path: that raises RuntimeError for a link to itself, which fails for itself when its turn comes.
    resolved = {os.path.realpath(path) for path in written}
    for pair in pairs:
        for item in pair.files:
            if os.path.realpath(item.path) in resolved:
                raise UsageError(f"{item.path}: is an input and would be overwritten; choose another --output")


def _software() -> str:
    try:
        version = importlib.metadata.version("cryoplug")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    return f"cryoplug {version}, numpy {np.__version__}"
