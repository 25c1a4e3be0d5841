"""Keep one output of a network that has several: training goes on with the image alone."""

from __future__ import annotations

from dataclasses import replace

from cryoplug.models.checkpoint import Checkpoint


def image_alone(checkpoint: Checkpoint) -> Checkpoint:
    """Keep of a `unet` what gives the image, its first output: the last layer is cut, all others stay.

    The image that it gives is the same; what is soft-clipped on the way in is added to it as before. Other networks have one
    output and come back as they are.
    """
    count = len(checkpoint.spec.outputs)
    if count == 1:
        return checkpoint
    config = {name: value for name, value in checkpoint.config.items() if name != "outputs"}
    shapes = replace(checkpoint, config=config).spec.weight_shapes()
    weights = {name: array[: shapes[name][0]] for name, array in checkpoint.weights.items()}
    return replace(checkpoint, weights=weights, config=config, path=None)
