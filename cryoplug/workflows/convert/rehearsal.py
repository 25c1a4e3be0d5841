"""``convert --dry-run``: find, open and check every input, add up the size of the store, and write nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from cryoplug.core.outlook import Expect, unwatched
from cryoplug.core.pixel_size import PixelSize, pixel_size_of_exposure
from cryoplug.core.plan import Plan, free_space
from cryoplug.core.results import FileResult
from cryoplug.errors import InputError, StorageError
from cryoplug.inputs.movies.gain_of_run import RunGain
from cryoplug.inputs.movies.halves import MovieInput, size_of_halves
from cryoplug.inputs.pair_proof import PairProof
from cryoplug.inputs.pairing import PairedInput
from cryoplug.store.layout import storage_dtype
from cryoplug.store.manifest import Manifest
from cryoplug.workflows.convert.cropping import cropped_grid
from cryoplug.workflows.convert.patch_stream import check_holds_a_patch, open_item
from cryoplug.workflows.convert.request import ConvertRequest
from cryoplug.workflows.convert.run import Progress
from cryoplug.workflows.convert.workflow import complete_already, prepared


def rehearse(
    request: ConvertRequest,
    progress: Progress = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
    *,
    expect: Expect = unwatched,
) -> Plan:
    """Say what `cryoplug.workflows.convert.convert` would do now; this opens every file and reads its header.

    Parameters
    ----------
    request
        The request.
    progress
        Called with each file that would be skipped or would fail.
    note, expect
        As for `convert`.

    Raises
    ------
    CryoplugError
        The error with which `convert` would end before its first micrograph.
    """
    request, inputs, head = prepared(request, note, expect)
    complete = None if request.overwrite else complete_already(request, head, inputs, progress)
    free = free_space(request.target)
    if complete is not None:
        return Plan(complete.files, output=request.target, free_bytes=free)
    RunGain(request.gain, request.defects)
    proof = PairProof(halves=request.pairs == "halves", accept_unproven=request.accept_unproven)
    to_do: list[Path] = []
    failed: list[FileResult] = []
    needed, images = 0, 0
    for pair in inputs.pairs:
        shown = pair.noisy.shown
        try:
            count, pixels = _images_of(pair, request, proof)
        except (InputError, StorageError) as error:
            failed.append(FileResult(shown, "failed", message=str(error), exit_code=error.exit_code))
            progress(failed[-1])
            continue
        to_do.append(shown)
        images += count
        needed += head.sides * count * pixels * storage_dtype(head.dtype).itemsize
        note(f"would convert {shown}")
    if images:
        what = "micrographs, whole" if head.whole else f"pairs of {head.patch_shape[0]} px"
        note(f"would pack {images} {what}, normalised by {head.normalize}")
    return Plan(
        tuple(failed),
        output=request.target,
        details=_details(head, images),
        to_do=tuple(to_do),
        needed_bytes=needed,
        free_bytes=free,
    )


def _details(head: Manifest, images: int) -> dict[str, int | bool]:
    return {"pairs": images, "patch_size": head.patch_shape[0], "whole": head.whole}


def _images_of(pair: PairedInput, request: ConvertRequest, proof: PairProof) -> tuple[int, int]:
    """Open the files of a pair as the run does; give the number of patch pairs, and the pixels in one patch."""
    shape, known = _size_of(pair, request, proof)
    path = pair.noisy.path
    if request.angpix is not None:
        shape = cropped_grid(path, shape, pixel_size_angstrom=known.angstrom, target_angstrom=request.angpix)
    check_holds_a_patch(path, shape, request)
    if request.store == "whole":
        return 1, shape[0] * shape[1]
    rows, columns = ((side - request.patch_px) // request.stride_px + 1 for side in shape)
    return rows * columns, request.patch_px**2


def _size_of(pair: PairedInput, request: ConvertRequest, proof: PairProof) -> tuple[tuple[int, int], PixelSize]:
    """Give ``(y, x)`` of both sides before cropping, and their pixel size."""
    if isinstance(pair, MovieInput):
        shape, listed, in_file = size_of_halves(pair)
        return shape, pixel_size_of_exposure(request.pixel_size, (listed,), (in_file, in_file))[0]
    if pair.problem is not None:
        raise pair.problem
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(open_item(item)) for item in pair.files]
        known, sizes = pixel_size_of_exposure(
            request.pixel_size,
            tuple(item.pixel_size_angstrom for item in pair.files),
            tuple(source.pixel_size_angstrom for source in sources),
        )
        if len(sources) == 2:
            proof.check_files(sources[0], sources[1], sizes)
        return sources[0].shape, known
