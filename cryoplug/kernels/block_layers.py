"""The layers of a U-Net on blocks of pixels: their matrices, and the sizes with which a kernel runs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from cryoplug.kernels.block_maps import VECTOR
from cryoplug.kernels.block_matrices import (
    Block,
    choose_block,
    coarse_matrix,
    filled,
    fine_matrix,
    first_matrix,
    in_parts,
    oriented,
    output_matrix,
    split_outputs,
)


@dataclass(frozen=True)
class Launch:
    """Sizes with which a kernel runs."""

    m: int
    """Blocks in each program."""
    k: int
    """Values of a window to read at a time."""
    warps: int
    """Groups of 32 threads in each program."""
    stages: int
    """Reads in progress at a time."""


# Measured on an H200 with the general model and with a unet of full resolution, twelve ways; see docs/decisions/0036.
CONVOLVES = Launch(128, 64, 4, 3)
"""Sizes for all layers but the last."""
ENDS = Launch(256, 64, 8, 3)
"""Sizes for the last layer, which has few outputs."""


@dataclass(frozen=True)
class Layer:
    """A convolution over blocks, in several orientations."""

    block: Block
    """Pixels that are computed together."""
    channels: int
    """Output channels."""
    weight: torch.Tensor
    """Matrices ``(orientations, phases, parts, rows, outputs)``; see `in_parts`."""
    bias: torch.Tensor
    """float32, for every output of a block."""
    split: tuple[int, int, int]
    """How programs share the outputs; see `split_outputs`."""
    fine: tuple[int, int, int]
    """For the source of the same sampling: channels, values in a row of a window, rows of the matrix."""
    coarse: tuple[int, int, int]
    """The same for the source that is doubled; zeros without one."""
    launch: Launch
    """Sizes with which it runs."""

    @property
    def step(self) -> tuple[int, int]:
        """Distance from one block of a phase to the next, in rows and in columns."""
        return (2, 2) if self.coarse[0] else (self.block.y, self.block.x)

    def of(self, orientations: slice) -> Layer:
        """Keep some of the orientations."""
        if orientations == slice(0, len(self.weight)):
            return self
        return replace(self, weight=self.weight[orientations])


@dataclass(frozen=True)
class LastLayer:
    """The convolution that gives the mean over the orientations, pixel by pixel."""

    block: Block
    """Points of the finest level that are computed together."""
    stem: int
    """Pixels of such a point in each direction."""
    weight: torch.Tensor
    """``(orientations, rows, outputs)``; at least 16 outputs."""
    bias: torch.Tensor
    """float32, for every output."""
    scale: float
    """Weight of an orientation in the mean."""
    launch: Launch
    """Sizes with which it runs."""

    def of(self, orientations: slice) -> LastLayer:
        """Keep some of the orientations, and their part of the bias."""
        if orientations == slice(0, len(self.weight)):
            return self
        weight = self.weight[orientations]
        return replace(self, weight=weight, bias=self.bias * (len(weight) / len(self.weight)))


def first_layer(
    weight: torch.Tensor, bias: torch.Tensor, *, stem: int, orientations: int, dtype: torch.dtype, launch: Launch
) -> Layer:
    """Make the layer that sees pixels, ``(out, stem * stem, 3, 3)``."""
    block = choose_block(weight.shape[0])
    matrix = first_matrix(weight, block, stem, orientations)
    window = filled(matrix, VECTOR).shape[2]
    matrix = filled(matrix, launch.k)
    # One row, however long: what follows the window counts for nothing.
    return _layer(matrix, bias, block, (window, matrix.shape[2], matrix.shape[2]), (0, 0, 0), dtype, launch)


def inner_layer(
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    fine: int,
    even: bool,
    orientations: int,
    dtype: torch.dtype,
    launch: Launch,
) -> Layer:
    """Make a layer over features.

    Parameters
    ----------
    weight, bias
        Weight and bias of the convolution, ``(out, in, 3, 3)`` and ``(out,)``, float32.
    fine
        Number of input channels that have the sampling of the output; the others are doubled.
    even
        Whether the sides of its maps are even, so that blocks of two are possible.
    orientations
        8, or 1.
    dtype
        Type of the weights.
    launch
        Sizes with which it runs.
    """
    channels, inputs = weight.shape[:2]
    block = choose_block(channels) if even else Block(1, 1)
    matrix = filled(fine_matrix(weight[:, :fine], block, orientations), launch.k)
    of_fine = (fine, (block.x + 2) * fine, matrix.shape[2])
    of_coarse = (0, 0, 0)
    if fine < inputs:
        below = filled(coarse_matrix(weight[:, fine:], block, orientations), launch.k)
        of_coarse = (inputs - fine, block.coarse_columns * (inputs - fine), below.shape[2])
        # The fine matrix is the same in all phases.
        matrix = torch.cat((matrix.expand(-1, below.shape[1], -1, -1), below), dim=2)
    return _layer(matrix, bias, block, of_fine, of_coarse, dtype, launch)


def last_layer(
    weight: torch.Tensor, bias: torch.Tensor, *, stem: int, orientations: int, dtype: torch.dtype, launch: Launch
) -> LastLayer:
    """Make the layer that gives pixels, ``(stem * stem, in, 3, 3)``."""
    block = choose_block(weight.shape[1])
    matrix = filled(output_matrix(weight, block, stem, orientations), launch.k)
    missing = -matrix.shape[3] % 16
    # A point's pixels are turned with it, so their biases are averaged, too.
    turned = oriented(bias.view(stem, stem), orientations).mean(0).view(1, stem, 1, stem)
    biases = turned.expand(block.y, stem, block.x, stem).reshape(-1)
    return LastLayer(
        block,
        stem,
        functional.pad(matrix[:, 0], (0, missing)).to(dtype).contiguous(),
        functional.pad(biases, (0, missing)).contiguous(),
        1.0 / orientations,
        launch,
    )


def _layer(
    matrix: torch.Tensor,
    bias: torch.Tensor,
    block: Block,
    fine: tuple[int, int, int],
    coarse: tuple[int, int, int],
    dtype: torch.dtype,
    launch: Launch,
) -> Layer:
    split = split_outputs(matrix.shape[3])
    if split is None:
        raise ValueError(f"{matrix.shape[3]} outputs cannot be shared by programs")
    weight = in_parts(matrix, split[0]).to(dtype)
    return Layer(block, len(bias), weight, bias.repeat(block.pixels).contiguous(), split, fine, coarse, launch)
