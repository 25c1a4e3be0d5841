"""The numbers of a `unet` of given depth and width, without torch: how far it sees, its pooling grid, its weights."""

from __future__ import annotations

import dataclasses
import math

from cryoplug.errors import UsageError
from cryoplug.models.registry import KERNEL_SIDE, ModelSpec

NORMS = ("none", "group")
STEMS = (1, 2, 4)
SKIPS = ("input", "none")
OUTPUTS = ("image", "particles")
"""Names of the outputs in order: the micrograph without its noise, and everything in it that is not ice."""
MAX_DEPTH = 6
MAX_CHANNELS = 2048
GROUPS = 8
"""Groups of a group norm; widths must be multiples of it."""
_BLOCK_RADIUS = 2
"""Radius of a block in pixels: two 3x3 convolutions."""


def configure(
    spec: ModelSpec,
    *,
    depth: int = 3,
    width: int = 32,
    norm: str = "none",
    stem: int = 1,
    skip: str = "input",
    outputs: int = 1,
    clip: float = 0.0,
    most: int = 0,
) -> ModelSpec:
    """Return the entry of a U-Net of this configuration.

    Parameters
    ----------
    spec
        The entry to complete.
    depth
        How often the image is halved, 1 to 6.
    width
        Channels at the finest level; every halving doubles them, up to 2048 in all.
    norm
        ``none`` or ``group``; see docs/decisions/0007-unet-without-norm.md.
    stem
        1, 2 or 4: the finest level has one grid point for stem x stem pixels, which become its channels. A network of
        twice the width is then as fast, and sees twice as far.
    skip
        ``input``: the network computes a correction, which is added to its input (only in the output ``image``, never in
        ``particles``); it begins as the identity. ``none``: it computes the image itself and begins with 0, which learns
        faster if most of the input is noise; see docs/decisions/0008-mixtures-of-halves.md.
    outputs
        1: the image. 2: the image, and the particles alone; see `OUTPUTS`.
    clip
        Largest absolute value that the layers see; 0 sets no limit. The rest of a larger value is added to the image
        afterwards, never to the particles. Without this, a hot pixel of 200 deviations would brighten its surroundings.
    most
        Most channels: halving doubles the channels up to this number; 0 sets no limit.

    Raises
    ------
    UsageError
        A value is not allowed.
    """
    problems = []
    if type(depth) is not int or not 1 <= depth <= MAX_DEPTH:
        problems.append(f"depth {depth!r} (allowed: 1 to {MAX_DEPTH})")
    elif type(most) is not int or not 0 <= most <= MAX_CHANNELS:
        problems.append(f"most {most!r} (allowed: 0 for no limit, or up to {MAX_CHANNELS} channels)")
    elif type(width) is not int or width < 1 or (width << depth > MAX_CHANNELS if most == 0 else width > most):
        problems.append(f"width {width!r} (allowed with depth {depth}: 1 to {most or MAX_CHANNELS >> depth})")
    elif norm == "group" and (width % GROUPS or most % GROUPS):
        name, value = ("width", width) if width % GROUPS else ("most", most)
        problems.append(f"{name} {value} (allowed with norm group: multiples of {GROUPS})")
    if norm not in NORMS:
        problems.append(f"norm {norm!r} (allowed: {', '.join(NORMS)})")
    if type(stem) is not int or stem not in STEMS:
        problems.append(f"stem {stem!r} (allowed: {', '.join(map(str, STEMS))})")
    if skip not in SKIPS:
        problems.append(f"skip {skip!r} (allowed: {', '.join(SKIPS)})")
    if type(outputs) is not int or not 1 <= outputs <= len(OUTPUTS):
        problems.append(f"outputs {outputs!r} (allowed: 1 to {len(OUTPUTS)})")
    if type(clip) not in (int, float) or not 0 <= clip < math.inf:
        problems.append(f"clip {clip!r} (allowed: 0 for none, or a positive number)")
    if problems:
        raise UsageError(f"model {spec.id}: " + "; ".join(problems))
    return dataclasses.replace(
        spec,
        receptive_field_px=receptive_radius(depth, stem),
        size_multiple=stem << depth,
        tensor_shapes=_tensor_shapes(depth, width, norm, stem, outputs, most),
        tile_channels=8 * -(-width // stem**2),
        uses_whole_image=norm == "group",
        outputs=OUTPUTS[:outputs],
    )


def channels_at(level: int, width: int, most: int = 0) -> int:
    """Channels at a level; 0 is full resolution."""
    return min(width << level, most) if most else width << level


def receptive_radius(depth: int, stem: int = 1) -> int:
    """Return how far an output pixel sees at most, over all its positions on the pooling grid."""
    reaches = []
    for position in range(stem << depth):
        point = position // stem
        first, last = _reach(0, depth, point - 1, point + 1)
        reaches += [position - stem * first, stem * last + stem - 1 - position]
    return max(reaches)


def block_channels(depth: int, width: int, stem: int = 1, most: int = 0) -> dict[str, tuple[int, int]]:
    """Return (channels in, channels out) of every block by name: ``down0``, ..., ``middle``, ..., ``up0``."""
    blocks = {}
    for level in range(depth):
        blocks[f"down{level}"] = (
            stem**2 if level == 0 else channels_at(level - 1, width, most),
            channels_at(level, width, most),
        )
    blocks["middle"] = (channels_at(depth - 1, width, most), channels_at(depth, width, most))
    for level in reversed(range(depth)):
        here = channels_at(level, width, most)
        blocks[f"up{level}"] = (here + channels_at(level + 1, width, most), here)
    return blocks


def _reach(level: int, depth: int, first: int, last: int) -> tuple[int, int]:
    """Give the pixels that enter a level for those that leave it: block down, skip and lower levels, block up."""
    first, last = first - _BLOCK_RADIUS, last + _BLOCK_RADIUS
    if level == depth:
        return first, last
    below_first, below_last = _reach(level + 1, depth, first // 2, last // 2)
    return min(first, 2 * below_first) - _BLOCK_RADIUS, max(last, 2 * below_last + 1) + _BLOCK_RADIUS


def _tensor_shapes(
    depth: int, width: int, norm: str, stem: int, outputs: int, most: int
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = shape[:1]

    for name, (inside, outside) in block_channels(depth, width, stem, most).items():
        for number, entering in ((1, inside), (2, outside)):
            add(f"{name}.conv{number}", outside, entering, KERNEL_SIDE, KERNEL_SIDE)
            if norm == "group":
                add(f"{name}.norm{number}", outside)
    add("output", outputs * stem**2, width, KERNEL_SIDE, KERNEL_SIDE)
    return tuple(shapes.items())
