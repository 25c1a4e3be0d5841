"""Which output of a network is written, and how it is brought back to the micrograph's grey values."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryoplug.errors import UsageError

if TYPE_CHECKING:
    from cryoplug.core.normalization import Normalization
    from cryoplug.models.checkpoint import Checkpoint

TARGETS = ("image", "particles")
"""``image``: the micrograph without its noise, with its ice. ``particles``: everything in it that is not ice."""
DEFAULT_TARGET = "image"
"""Target if the user asks for none and the network has both; see docs/decisions/0019-two-outputs.md."""
ONLY_TARGET = "image"
"""Target of networks with one output, and of results from before there were two."""


def choose_target(asked: str | None, checkpoint: Checkpoint) -> str:
    """Decide which output of a checkpoint is written.

    Parameters
    ----------
    asked
        One of `TARGETS`; None takes `DEFAULT_TARGET`, or the only output.
    checkpoint
        The checkpoint, which knows the outputs of its network.

    Raises
    ------
    UsageError
        Its network does not have this output.
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
    """Give the number of the network's channel for a target; it is the first if the network names no outputs."""
    outputs = checkpoint.spec.outputs
    return outputs.index(target) if target in outputs else 0


def to_grey_values(normalization: Normalization, mean: float, target: str) -> Normalization:
    """Give the normalization whose inverse brings a target back to grey values.

    Particles without ice have no grey level of their own. They keep the scale of the micrograph and get its mean, so viewers
    and pickers find them at the grey level of the raw micrograph.

    Parameters
    ----------
    normalization
        Normalization of the network's input.
    mean
        Mean of the pixels before it.
    target
        One of `TARGETS`.
    """
    if target != "particles":
        return normalization
    return dataclasses.replace(normalization, offset=mean)
