"""Which of a network's outputs is written, and how it comes back to the micrograph's grey values."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryoplug.errors import UsageError

if TYPE_CHECKING:
    from cryoplug.core.normalization import Normalization
    from cryoplug.models.checkpoint import Checkpoint

TARGETS = ("image", "particles")
"""``image``: the micrograph without its noise, its ice included. ``particles``: what in it is not ice."""
DEFAULT_TARGET = "image"
"""Where nothing was asked for and the network has both; see docs/decisions/0019-two-outputs.md."""
ONLY_TARGET = "image"
"""Of networks with one output, and of results from before there were two."""


def choose_target(asked: str | None, checkpoint: Checkpoint) -> str:
    """Decide what of a checkpoint's outputs is written.

    Parameters
    ----------
    asked
        One of `TARGETS`; None: `DEFAULT_TARGET`, or what there is.
    checkpoint
        Says what its network gives.

    Raises
    ------
    UsageError
        Its network does not give that.
    """
    outputs = checkpoint.spec.outputs
    if asked is None:
        return DEFAULT_TARGET if DEFAULT_TARGET in outputs else ONLY_TARGET
    if asked not in outputs:
        name = checkpoint.path or checkpoint.model_id
        raise UsageError(
            f"--target {asked}: {name} gives the {' and the '.join(outputs)} only; leave --target out, or give a checkpoint "
            "of two outputs, such as general"
        )
    return asked


def output_index(target: str, checkpoint: Checkpoint) -> int:
    """Tell which channel of the network is a target; networks that name none have it as their first."""
    outputs = checkpoint.spec.outputs
    return outputs.index(target) if target in outputs else 0


def to_grey_values(normalization: Normalization, mean: float, target: str) -> Normalization:
    """Say how a target comes back to grey values: by what is inverted here.

    What is not ice has no grey level of its own. It keeps the scale of the micrograph and lies on its mean, so viewers
    and pickers find it where the raw micrograph is.

    Parameters
    ----------
    normalization
        What the network's input went through.
    mean
        Of the pixels before it.
    target
        One of `TARGETS`.
    """
    if target != "particles":
        return normalization
    return dataclasses.replace(normalization, offset=mean)
