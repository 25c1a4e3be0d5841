"""Compare a micrograph with the training data before it is denoised: its look, and the strength of its noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cryoplug.core.micrograph import ImageF32
from cryoplug.core.normalization import Normalization
from cryoplug.inference.second_look import bright_particles_found
from cryoplug.metrics.appearance import Seen, bright_particles_remark, looks_like_noise, measure_appearance, unlike

if TYPE_CHECKING:
    from cryoplug.models.checkpoint import Checkpoint

FIELD = "seen"
"""Field of ``checkpoint.json``; checkpoints of older versions and of the founding program do not have it."""
WINDOWS = 2
"""Windows in each direction; with windows of 512 pixels, about a million pixels, measured in 26 ms on one core."""
WINDOW_PX = 512
SIGNS_ON_A_GPU = 8
"""Micrographs of a process whose sign is looked at on a GPU, where 26 ms a micrograph count: one microscope has one sign."""
MOST_LOOKED_AT = 32
"""Most images of a stack that are compared per batch: 130,000 pixels of particles of 64 x 64."""
MOST_MATCHED = 1.5
"""Largest factor by which the noise is scaled to that of the training data. Halves and their sum differ by 1.4 at most. A
larger factor means that the image was filtered; its noise near Nyquist then says nothing about the rest."""


class Rows(Protocol):
    """A micrograph, in a file or on a device."""

    shape: tuple[int, int]

    def read_rows(self, start: int, stop: int) -> ImageF32:
        """Give rows of pixels."""


def look(
    source: Rows, normalization: Normalization, checkpoint: Checkpoint, *, sign: bool = True
) -> tuple[Normalization, list[str]]:
    """Compare a micrograph with the training data, and match its noise level if that is known to help.

    A network that learnt from halves has seen half the dose. Scaled to a standard deviation of 1, a whole exposure has
    less noise than a half. Scaled to the noise of a half, it is denoised better (docs/decisions/0010).

    Parameters
    ----------
    source
        The micrograph on the network's grid; some of its rows are read.
    normalization
        Normalization fitted to the micrograph.
    checkpoint
        The checkpoint that will be applied.
    sign
        Whether to look for bright particles if the checkpoint has no record of its training data, but tells particles from
        ice. Such a network (the general model) knows only dark ones.

    Returns
    -------
    tuple
        The normalization to apply and to invert, and remarks on how the micrograph differs from the training data. If the
        checkpoint has no record of these, the given normalization, and a remark on bright particles at most.
    """
    windows = (
        [normalization.apply(window) for window in _windows(source)] if _can_compare(checkpoint, sign=sign) else []
    )
    (normalization,), remarks = _compare(windows, [normalization], checkpoint, sign=sign, may_ask=True)
    return normalization, remarks


def shows_no_particles(source: Rows, normalization: Normalization, target: str) -> bool:
    """Tell whether particles are requested although the raw pixels show no sign of any: dark and bright spots are balanced.

    Particles are dark, so their micrographs have skewed grey values. The grain of ice and of carbon has not, even if its
    spectrum is like that of particles. A few faint particles may be missed here; see `remarks.invented_remark`.

    Parameters
    ----------
    source, normalization
        As for `look`.
    target
        One of `cryoplug.inference.target.TARGETS`; the answer is False for all except ``particles``.
    """
    if target != "particles":
        return False
    found = measure_appearance(normalization.apply(window) for window in _windows(source))
    return found is not None and looks_like_noise(found)


def look_at_many(
    images: Sequence[tuple[np.ndarray, Normalization]], checkpoint: Checkpoint
) -> tuple[list[Normalization], list[str]]:
    """Compare small images of one stack together with the training data; see `look`.

    Parameters
    ----------
    images
        Images ``(y, x)`` on the network's grid, each with the normalization that was fitted to it.
    checkpoint
        The checkpoint that will be applied.

    Returns
    -------
    tuple
        The normalization of each image, all scaled by one factor; and remarks on how they differ from the training data.
    """
    step = max(1, -(-len(images) // MOST_LOOKED_AT))
    can = _can_compare(checkpoint, sign=True)
    sample = [normalization.apply(image) for image, normalization in images[::step]] if can else []
    return _compare(sample, [normalization for _, normalization in images], checkpoint, sign=True)


def _can_compare(checkpoint: Checkpoint, *, sign: bool) -> bool:
    """Tell whether there is anything to compare a micrograph with."""
    return FIELD in checkpoint.details or (sign and "particles" in checkpoint.spec.outputs)


def _compare(
    patches: Sequence[np.ndarray],
    normalizations: list[Normalization],
    checkpoint: Checkpoint,
    *,
    sign: bool,
    may_ask: bool = False,
) -> tuple[list[Normalization], list[str]]:
    seen = Seen.from_record(checkpoint.details.get(FIELD))
    by_sign = sign and seen is None and "particles" in checkpoint.spec.outputs
    found = measure_appearance(patches) if seen or by_sign else None
    if found is None:
        return normalizations, []
    if seen is None:
        remark = bright_particles_remark(found)
        if not remark and may_ask:
            remark = bright_particles_found(found, patches, checkpoint)
        return normalizations, [remark] if remark else []
    remarks = [f"unlike the training data: {text}" for text in unlike(found, seen)]
    if (
        normalizations[0].kind in ("zscore", "robust")
        and _learnt_from_halves(checkpoint)
        and seen.noise_level
        and found.noise_sigma > 0
    ):
        factor = seen.noise_level / found.noise_sigma
        if 1 / MOST_MATCHED <= factor <= MOST_MATCHED:
            normalizations = [dataclasses.replace(item, scale=item.scale / factor) for item in normalizations]
    return normalizations, remarks


def _learnt_from_halves(checkpoint: Checkpoint) -> bool:
    """Tell whether a network was trained only on halves; mixtures of halves are nearly as clean as the sum."""
    training = checkpoint.details.get("training")
    mixed = isinstance(training, dict) and training.get("mix", 1.0) != 1.0
    return checkpoint.details.get("pairs") == "halves" and not mixed


def _windows(source: Rows) -> Iterator[np.ndarray]:
    height, width = (min(side, WINDOW_PX) for side in source.shape)
    for y in _starts(source.shape[0]):
        rows = source.read_rows(y, y + height)
        for x in _starts(source.shape[1]):
            yield rows[:, x : x + width]


def _starts(side: int) -> list[int]:
    last = side - min(side, WINDOW_PX)
    return sorted({int(start) for start in np.linspace(0, last, WINDOWS)})
