"""Keep one output of a network that has several, so that training can go on with the image alone."""

from __future__ import annotations

from dataclasses import replace

from cryoplug.models.checkpoint import Checkpoint


def image_alone(checkpoint: Checkpoint) -> Checkpoint:
    """Keep only the image, the first output of a `unet`: the last layer is cut, all others stay.

    The image stays the same; also, values that are clipped on the way in are added to it as before. Networks with one output
    are returned unchanged.
    """
    count = len(checkpoint.spec.outputs)
    if count == 1:
        return checkpoint
    config = {name: value for name, value in checkpoint.config.items() if name != "outputs"}
    shapes = replace(checkpoint, config=config).spec.weight_shapes()
    weights = {name: array[: shapes[name][0]] for name, array in checkpoint.weights.items()}
    return replace(checkpoint, weights=weights, config=config, path=None)
