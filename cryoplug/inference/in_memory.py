"""Denoise one image in memory, with all steps around the network; used by the Python API, ``--halves`` and `evaluate`.

`cryoplug denoise` does the same with a file in bands or on a GPU; tests check that the results agree.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryoplug.core.fourier_crop import resample_image
from cryoplug.core.grey_scale import normalization_remark
from cryoplug.core.mean_kept import mean_shift
from cryoplug.core.micrograph import ArrayMicrograph, ImageF32
from cryoplug.core.normalization import check_usable, clipped_fraction, fit_normalization
from cryoplug.core.repairs import repaired_image
from cryoplug.core.statistics import moments_of, scan_pixels
from cryoplug.inference.likeness import look, shows_no_particles
from cryoplug.inference.remarks import invented_remark, remarks_on_scale
from cryoplug.inference.resampling import resample_on_host
from cryoplug.inference.target import to_grey_values

if TYPE_CHECKING:
    from cryoplug.core.tiling import Tile
    from cryoplug.inference.prepared import PreparedNetwork
    from cryoplug.inference.regrid import GridPlan

NAME = Path("<array>")
"""Name in messages of an image that does not come from a file."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """A denoised image."""

    pixels: ImageF32
    """Pixels ``(y, x)`` in the grey values of the given image."""
    remarks: tuple[str, ...]
    """Remarks for the user: on the grey values, and on differences from the training data."""
    mean_shift: float = 0.0
    """Value added to the network's result to keep the mean, in grey values."""
    sigma_seen: float = 0.0
    """Standard deviation of the network's input, in grey values; 0 if the mean is not corrected."""


def in_memory(
    denoiser: PreparedNetwork, image: np.ndarray, *, pixel_size_angstrom: float | None = None, path: Path = NAME
) -> InMemory:
    """Denoise one image as ``cryoplug denoise`` does with the same settings.

    Parameters
    ----------
    denoiser
        The network, with its settings.
    image
        ``(y, x)``, any real type, finite, not constant.
    pixel_size_angstrom
        Pixel size of `image`; needed if the network works at a fixed pixel size.
    path
        Name of the image in messages.

    Returns
    -------
    InMemory
        The result has the shape and the grey values of `image`.

    Raises
    ------
    PixelError
        Pixels are NaN, infinite or all equal, or none is positive (percentile).
    InputError
        The pixel size is needed and not given.
    """
    source = ArrayMicrograph(np.asarray(image), path)
    plan = denoiser.regrid.plan(source.shape, pixel_size_angstrom, path=path)
    if not plan.does_nothing:
        check_usable(source, scan_pixels(source))
    pixels = source.read_rows(0, source.shape[0])
    if not denoiser.bare:
        pixels, _ = repaired_image(pixels)
    through = on_the_networks_grid(denoiser, pixels, plan, path=path)
    scale = filter(None, remarks_on_scale(plan, denoiser.checkpoint))
    through = replace(through, remarks=(*scale, *through.remarks))
    if plan.does_nothing:
        return through
    return replace(through, pixels=np.concatenate(list(plan.finish(through.pixels, pixels))))


def on_the_networks_grid(
    denoiser: PreparedNetwork,
    image: np.ndarray,
    plan: GridPlan,
    *,
    path: Path = NAME,
    should_stop: Callable[[], bool] = lambda: False,
) -> InMemory:
    """Run the network over one image; the result stays on the network's grid, for `GridPlan.finish`.

    Parameters
    ----------
    denoiser, path
        As for `in_memory`.
    image
        ``(y, x)``, repaired unless the network is `PreparedNetwork.bare`.
    plan
        The two grids.
    should_stop
        Asked before each tile; `Interrupted` is raised when it says yes.
    """
    small = (
        image
        if plan.network_shape == plan.shape
        else resample_image(image, plan.network_shape, resample=resample_on_host)
    )
    source = ArrayMicrograph(small, path)
    normalization, moments = fit_normalization(source, denoiser.normalize), moments_of(small)
    grey = normalization_remark(normalization, clipped=clipped_fraction(source, normalization), sigma=moments.std)
    normalization, unlike_training = look(source, normalization, denoiser.checkpoint)
    back = to_grey_values(normalization, moments.mean, denoiser.target)
    denoised = np.empty(source.shape, np.float32)
    under_way: deque[tuple[Tile, Callable[[], ImageF32]]] = deque()

    def finish_one() -> None:
        band, finish = under_way.popleft()
        denoised[band.paste.slices] = back.invert(finish())

    for band in denoiser.bands(source.shape):
        rows = normalization.apply(source.read_rows(band.read.y0, band.read.y1))
        under_way.append((band, denoiser.start(rows, band, should_stop)))
        if len(under_way) >= denoiser.bands_at_once(source.shape):
            finish_one()
    while under_way:
        finish_one()
    made = moments_of(denoised)
    invented = ""
    if shows_no_particles(source, normalization, denoiser.target):
        invented = invented_remark(made.std, moments.std)
    remarks = tuple(filter(None, [grey, *unlike_training, invented]))
    if denoiser.bare:
        return InMemory(denoised, remarks)
    shift = mean_shift(moments, made.mean)
    denoised += np.float32(shift)
    return InMemory(denoised, remarks, shift, moments.std)
