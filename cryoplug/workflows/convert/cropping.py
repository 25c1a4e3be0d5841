"""Crop the micrographs of a store to one pixel size before anything is measured or cut."""

from __future__ import annotations

from pathlib import Path

from cryoplug.core.fourier_crop import SAME_PIXEL_SIZE, cropped_shape, resample_open_axis, resample_source
from cryoplug.core.micrograph import ArrayMicrograph, MicrographSource
from cryoplug.core.pixel_size import unknown_pixel_size
from cryoplug.errors import InputError


def cropped_source(
    source: MicrographSource, *, pixel_size_angstrom: float | None, target_angstrom: float
) -> MicrographSource:
    """Return the micrograph at the target pixel size, in memory; the original is closed, unless it is returned itself.

    Raises
    ------
    InputError
        Its pixel size is unknown, or coarser than the target, so that it cannot be cropped.
    """
    shape = cropped_grid(
        source.path, source.shape, pixel_size_angstrom=pixel_size_angstrom, target_angstrom=target_angstrom
    )
    if shape == source.shape:
        return source
    small = resample_source(source, shape, resample=resample_open_axis)
    cropped = ArrayMicrograph(small, source.path, pixel_size_angstrom=target_angstrom)
    cropped.warnings = source.warnings
    source.close()
    return cropped


def cropped_grid(
    path: Path, shape: tuple[int, int], *, pixel_size_angstrom: float | None, target_angstrom: float
) -> tuple[int, int]:
    """Return the grid at the target pixel size.

    Raises
    ------
    InputError
        The pixel size of `path` is unknown, or coarser than the target, so that it cannot be cropped.
    """
    if pixel_size_angstrom is None:
        raise unknown_pixel_size(path, f"--angpix {target_angstrom:g} needs it", "leave --angpix out")
    if pixel_size_angstrom > target_angstrom * (1 + SAME_PIXEL_SIZE):
        raise InputError(
            f"{path}: pixel size {pixel_size_angstrom:g} angstrom, coarser than --angpix {target_angstrom:g}; "
            f"give --angpix {pixel_size_angstrom:g} or more"
        )
    return cropped_shape(shape, pixel_size_angstrom=pixel_size_angstrom, target_angstrom=target_angstrom)
