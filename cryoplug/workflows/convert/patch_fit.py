"""A patch size that suits the data, if the user gives none."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from cryoplug.core.fourier_crop import cropped_shape
from cryoplug.core.pixel_size import known_pixel_size
from cryoplug.errors import InputError, StorageError
from cryoplug.formats import registry
from cryoplug.inputs.movies.halves import MovieInput, size_of_halves
from cryoplug.inputs.pairing import PairedInput
from cryoplug.workflows.convert.request import ConvertRequest, usual_patch_size

_LOOKED_AT = 32
"""Most micrographs whose sizes are read, spread over the list; only headers are read."""
_SIZES = (1024, 768, 512, 384, 256, 192, 128, 96, 64, 48, 32, 24, 16)
"""Patch sizes to choose from; all are multiples of 8, because networks halve their images up to three times."""
_ODD_ONE_OUT = 4
"""An image so many times smaller than most (a thumbnail, a cut-out) does not decide for them: it fails alone."""
_LEAST_OF_MANY_PX = 64
"""Least side for several patches in each direction; a smaller image is better as one patch."""


def with_fitting_patches(request: ConvertRequest, pairs: Sequence[PairedInput]) -> ConvertRequest:
    """Choose the patch size of a request that leaves it open.

    It is the usual one (1024 pixels; 256 for whole micrographs) if it fits. In smaller micrographs it is the largest size
    with two patches side by side, and in images below 128 pixels the largest that fits once.

    Parameters
    ----------
    request
        The request; one with a patch size is returned unchanged.
    pairs
        The inputs; files that cannot be opened do not count.
    """
    if request.patch_size is not None:
        return request
    step = max(1, -(-len(pairs) // _LOOKED_AT))
    sides = [side for pair in pairs[::step] if (side := _shorter_side(request, pair)) is not None]
    if sides:
        least = statistics.median(sides) / _ODD_ONE_OUT
        sides = [side for side in sides if side >= least]
    usual = usual_patch_size(request.store)
    if not sides or min(sides) >= usual:
        return replace(request, patch_size=usual)
    return replace(request, patch_size=min(usual, fitting_patch_size(min(sides))))


def fitting_patch_size(side_px: int) -> int:
    """Give the patch size for images whose shorter side is too small for the usual one."""
    for size in _SIZES:
        if 2 * size <= side_px and size >= _LEAST_OF_MANY_PX:
            return size
    return next((size for size in _SIZES if size <= side_px), max(1, side_px))


def _shorter_side(request: ConvertRequest, pair: PairedInput) -> int | None:
    item = pair.noisy
    try:
        if isinstance(pair, MovieInput):
            shape, listed, in_file = size_of_halves(pair)
        else:
            with registry.open_movie(item.path) as opened:
                shape, listed, in_file = opened.frame_shape, item.pixel_size_angstrom, opened.pixel_size_angstrom
        known = known_pixel_size(request.pixel_size, listed, in_file)
    except (InputError, StorageError):
        return None
    if request.angpix is not None:
        size = known.angstrom
        if size is None or size > request.angpix:
            return None
        shape = cropped_shape(shape, pixel_size_angstrom=size, target_angstrom=request.angpix)
    return min(shape)
