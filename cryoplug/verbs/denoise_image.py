"""``cryoplug.denoise`` with an array."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cryoplug.core.micrograph import ImageF32
from cryoplug.inference.settings import ApplySettings
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.models.shipped import GENERAL
from cryoplug.verbs.applied import applied_fields
from cryoplug.verbs.arguments import AnyPath, checkpoint_of
from cryoplug.verbs.outcome import Note


def as_image(inputs: object) -> npt.NDArray[Any] | None:
    """Give pixels from a NumPy array, or from anything that can become one; None for file names, also in an array or table."""
    if not hasattr(inputs, "__array__"):
        return None
    pixels: npt.NDArray[Any] = np.asarray(inputs)
    return None if pixels.dtype.kind in "OUS" else pixels


def denoise_image(
    image: npt.NDArray[Any],
    *,
    checkpoint: AnyPath = GENERAL,
    pixel_size: float | None = None,
    note: Note | None = None,
    **applied: Any,
) -> ImageF32:
    """Denoise one image in memory; `cryoplug.verbs.denoise.denoise` has already checked the options."""
    from cryoplug.inference.denoiser import Denoiser

    def say(text: str) -> None:
        if note is not None:
            note(text)

    settings = ApplySettings(**applied_fields(applied))
    loaded = load_checkpoint(checkpoint_of(checkpoint))
    for text in filter(None, (settings.introduction(loaded), loaded.namesake_note)):
        say(text)
    return Denoiser(loaded, settings, note=say).denoise(image, pixel_size_angstrom=pixel_size)
