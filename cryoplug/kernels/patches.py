"""Cut patches from a flat set of images on a device, turned, as float32; with Triton in one kernel."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

import torch

_TILE = 64


@dataclass(frozen=True)
class Cut:
    """One patch to cut."""

    start: int
    """Index of its first pixel in the flat source."""
    stride: int
    """Distance from one row to the next, in pixels of the source."""
    target: int
    """Number of the patch in the target."""
    transpose: bool = False
    """Rows become columns, before any flip."""
    flip_y: bool = False
    """The last row becomes the first."""
    flip_x: bool = False
    """The last column becomes the first."""


def cut_patches(source: torch.Tensor, cuts: Sequence[Cut], target: torch.Tensor) -> None:
    """Copy patches into a target; the host does not wait for the device.

    Parameters
    ----------
    source
        Flat, any floating type.
    cuts
        The patches, and where each goes.
    target
        ``(n, y, x)`` float32, contiguous, on the device of `source`. Only square patches may be transposed.
    """
    if source.is_cuda and _has_triton():
        cut_in_one_kernel(source, cuts, target)
        return
    height, width = target.shape[1:]
    for cut in cuts:
        view = source[cut.start :].as_strided((height, width), (cut.stride, 1))
        place_turned(target[cut.target], view, transpose=cut.transpose, flip_y=cut.flip_y, flip_x=cut.flip_x)


def cut_in_one_kernel(source: torch.Tensor, cuts: Sequence[Cut], target: torch.Tensor) -> None:
    """Do the work of `cut_patches` in Triton, on a GPU or in Triton's interpreter."""
    from cryoplug.kernels import triton_patches

    _, height, width = target.shape
    rows = [
        (cut.start, cut.stride, cut.transpose + 2 * cut.flip_y + 4 * cut.flip_x, cut.target * height * width)
        for cut in cuts
    ]
    table = torch.tensor(rows, dtype=torch.int64)
    if source.is_cuda:
        # From pinned memory, so that the host does not wait; torch keeps it until the copy is done.
        table = table.pin_memory().to(source.device, non_blocking=True)
    grid = (len(cuts), -(-height // _TILE), -(-width // _TILE))
    triton_patches.cut_patches[grid](source, table, target, height, width, TILE=_TILE, num_warps=8)


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def place_turned(target: torch.Tensor, source: torch.Tensor, *, transpose: bool, flip_y: bool, flip_x: bool) -> None:
    """Copy one patch ``(y, x)``, turned, and convert its type if needed."""
    view = source.T if transpose else source
    mirrored = [axis for axis, on in enumerate((flip_y, flip_x)) if on]
    target.copy_(torch.flip(view, mirrored) if mirrored else view)
