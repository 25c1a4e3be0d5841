"""The remarks of denoise on a micrograph; every road gives the same sentences in the same order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from cryoplug.core.mean_kept import shift_remark
from cryoplug.core.remarks import joined
from cryoplug.core.repairs import Repairs
from cryoplug.inference.regrid import GridPlan
from cryoplug.models.checkpoint import Checkpoint

OTHER_SCALE = 1.5
"""A warning is given if the pixel sizes of micrograph and training data differ by this factor or more."""
ROUNDING_WARNING = 0.05
"""Rounding to float16 begins to be visible at this part of the standard deviation."""
MUCH_CAME_OUT = 0.05
"""Part of the variance above which particles must be visible in the raw pixels. They were in 21 real micrographs of
apoferritin and in 5 simulated fields: their skewness was 1.8 to 23 standard errors at some block size."""


def remarks_on_reading(
    *,
    warnings: Iterable[str],
    plan: GridPlan,
    checkpoint: Checkpoint,
    grey_values: Iterable[str] = (),
    repairs: Repairs | None = None,
) -> str:
    """Give the remarks that are known before a micrograph is written.

    Parameters
    ----------
    warnings
        Warnings of the reader about the header.
    plan
        The grids of the micrograph and of the network.
    checkpoint
        The checkpoint that is applied.
    grey_values
        Remarks on its grey values, and on differences from the training data.
    repairs
        What was repaired before the network.
    """
    return joined([*warnings, *remarks_on_scale(plan, checkpoint), *grey_values, repairs.remark if repairs else ""])


def remarks_on_writing(
    before: str,
    *,
    mean_shift: float,
    sigma: float,
    rounding_rms: float = 0.0,
    sigma_written: float = 0.0,
    no_particles: bool = False,
) -> str:
    """Add the remarks that are known only after a micrograph is denoised.

    Parameters
    ----------
    before
        From `remarks_on_reading`.
    mean_shift, sigma
        The value added to keep the mean, and the standard deviation of the network's input, in grey values.
    rounding_rms, sigma_written
        Root mean square of the rounding to float16, and standard deviation of the pixels.
    no_particles
        From `likeness.shows_no_particles`.
    """
    invented = invented_remark(sigma_written, sigma) if no_particles else ""
    return joined([before, shift_remark(mean_shift, sigma), _rounding_remark(rounding_rms, sigma_written), invented])


def invented_remark(sigma_written: float, sigma: float) -> str:
    """Warn of particles of which the raw pixels show no sign; empty when the result holds almost nothing.

    Parameters
    ----------
    sigma_written, sigma
        Standard deviations of the result and of the network's input.
    """
    if not sigma_written**2 > MUCH_CAME_OUT * sigma**2 > 0:
        return ""
    return (
        f"the particles have {100 * (sigma_written / sigma) ** 2:.0f} % of the variance, but the raw pixels look like noise: "
        "dark and bright spots are balanced; it may be the grain of ice or carbon; compare with the raw micrograph, blurred"
    )


def remarks_on_scale(plan: GridPlan, checkpoint: Checkpoint) -> Iterator[str]:
    """Give a remark if the pixel sizes of micrograph and training data differ much."""
    yield plan.remark
    size = plan.pixel_size_angstrom
    known = (None if size is None else plan.regrid.network_angstrom(size)) or plan.regrid.angpix
    trained = _nearest_trained(checkpoint, known)
    if known and trained and max(known / trained, trained / known) > OTHER_SCALE:
        yield (
            f"pixel size {known:g} A, but the checkpoint was trained at {trained:g} A: noise and particles look "
            "different to the network; use one trained near this pixel size"
        )


def _nearest_trained(checkpoint: Checkpoint, known: float | None) -> float | None:
    sizes = checkpoint.angpix_range
    if sizes is None or known is None:
        return checkpoint.pixel_size_angstrom
    return min(max(known, sizes[0]), sizes[1])


def _rounding_remark(rounding_rms: float, sigma: float) -> str:
    """Warn that float16 is too coarse for pixels with this standard deviation; empty when it is not."""
    if not rounding_rms > ROUNDING_WARNING * sigma:
        return ""
    part = 100 * rounding_rms / sigma if sigma else math.inf
    return f"float16 rounds the pixels by {part:.0f} % of their deviation; write float32"
