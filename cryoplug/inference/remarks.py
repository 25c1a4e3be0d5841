"""What denoise says about a micrograph: on every road the same sentences, in the same order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from cryoplug.core.hot_pixels import HotPixels
from cryoplug.core.mean_kept import shift_remark
from cryoplug.core.remarks import joined
from cryoplug.inference.regrid import GridPlan
from cryoplug.models.checkpoint import Checkpoint

OTHER_SCALE = 1.5
"""Factor between the pixel sizes of a micrograph and of the training data from which on a warning is given."""
ROUNDING_WARNING = 0.05
"""Rounding to float16 of this part of the deviation begins to be seen."""
MUCH_CAME_OUT = 0.05
"""Part of the variance. Particles that came out with more were to be seen in the raw pixels of 21 real micrographs of
apoferritin and of 5 simulated fields, whose skewness was 1.8 to 23 standard errors at some block size."""


def remarks_on_reading(
    *,
    warnings: Iterable[str],
    plan: GridPlan,
    checkpoint: Checkpoint,
    grey_values: Iterable[str] = (),
    hot: HotPixels | None = None,
) -> str:
    """Say what is known of a micrograph before it is written.

    Parameters
    ----------
    warnings
        Of its reader: about the header.
    plan
        Its grid and that of the network.
    checkpoint
        What is applied.
    grey_values
        What is said about its grey values, and how they differ from the training data.
    hot
        Its hot pixels.
    """
    return joined([*warnings, *remarks_on_scale(plan, checkpoint), *grey_values, hot.remark if hot else ""])


def remarks_on_writing(
    before: str,
    *,
    mean_shift: float,
    sigma: float,
    rounding_rms: float = 0.0,
    sigma_written: float = 0.0,
    no_particles: bool = False,
) -> str:
    """Add what is known only when a micrograph is denoised.

    Parameters
    ----------
    before
        From `remarks_on_reading`.
    mean_shift, sigma
        What was added to keep the mean, and the deviation of what the network saw, in grey values.
    rounding_rms, sigma_written
        By how much float16 rounded the pixels, and their deviation.
    no_particles
        From `likeness.shows_no_particles`.
    """
    invented = invented_remark(sigma_written, sigma) if no_particles else ""
    return joined([before, shift_remark(mean_shift, sigma), _rounding_remark(rounding_rms, sigma_written), invented])


def invented_remark(sigma_written: float, sigma: float) -> str:
    """Warn of particles that the raw pixels show no sign of; empty when next to nothing came out.

    Parameters
    ----------
    sigma_written, sigma
        Deviation of what came out, and of what the network saw.
    """
    if not sigma_written**2 > MUCH_CAME_OUT * sigma**2 > 0:
        return ""
    return (
        f"the particles have {100 * (sigma_written / sigma) ** 2:.0f} % of the variance, but the raw pixels look like noise: "
        "dark and bright spots are balanced; it may be the grain of ice or carbon; compare with the raw micrograph, blurred"
    )


def remarks_on_scale(plan: GridPlan, checkpoint: Checkpoint) -> Iterator[str]:
    """Say what the user should know about the pixel size of a micrograph and that of the training data."""
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
    """Say that float16 is too coarse for pixels of this deviation; empty when it is not."""
    if not rounding_rms > ROUNDING_WARNING * sigma:
        return ""
    part = 100 * rounding_rms / sigma if sigma else math.inf
    return f"float16 rounds the pixels by {part:.0f} % of their deviation; write float32"
