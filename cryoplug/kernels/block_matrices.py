"""A 3x3 convolution as one matrix product over blocks of pixels, for networks with few channels.

Matrix units of a GPU compute 64 or 128 outputs at once, and read their input once for all of them. With 40 channels a third
of that is idle, and the input is read nine times. A block of 2x2 pixels has 160 outputs and sees a window of 4x4 pixels: 16
reads for four pixels instead of 36. Part of its matrix is zeros: 9 of 16 taps count.

Doubled images are never made: a window sees few coarse pixels, so the weights that fall on the same one are added up. Nor is
any image turned, because turning the weights has the same effect.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

WIDEST = 160
"""Most outputs that one program computes."""


@dataclass(frozen=True)
class Block:
    """A block of pixels that are computed together."""

    y: int
    """Rows of the block, 1 or 2."""
    x: int
    """Columns of the block, 1 or 2."""

    @property
    def pixels(self) -> int:
        """Number of pixels in the block."""
        return self.y * self.x

    @property
    def coarse_rows(self) -> int:
        """Rows that it sees of an image to be doubled, counted before doubling."""
        return 3 if self.y == 2 else 2

    @property
    def coarse_columns(self) -> int:
        """Columns that it sees of an image to be doubled, counted before doubling."""
        return 3 if self.x == 2 else 2


def choose_block(channels: int) -> Block:
    """Choose the block whose number of outputs is largest without exceeding `WIDEST`."""
    if 4 * channels <= WIDEST:
        return Block(2, 2)
    return Block(1, 2) if 2 * channels <= WIDEST else Block(1, 1)


def split_outputs(outputs: int) -> tuple[int, int, int] | None:
    """Give how many programs share the outputs, and the two powers of 2 that each computes (the second may be 0).

    None if the outputs cannot be shared in this way.
    """
    for parts in range(-(-outputs // WIDEST), outputs // 16 + 1):
        if outputs % parts:
            continue
        first = 1 << (outputs // parts).bit_length() - 1
        second = outputs // parts - first
        if first >= 16 and (second == 0 or (second >= 16 and second & (second - 1) == 0)):
            return parts, first, second
    return None


def oriented(weight: torch.Tensor, orientations: int) -> torch.Tensor:
    """Give weights ``(orientations, ..., y, x)``; each acts like turning the image, applying `weight`, and turning back.

    The order is that of `cryoplug.inference.network.orientations`; 1 is the weight as it is.
    """
    turned = []
    for number in range(orientations):
        back = weight.rot90(-(number % 4), (-2, -1))
        turned.append(back.flip(-1) if number >= 4 else back)
    return torch.stack(turned)


def first_matrix(weight: torch.Tensor, block: Block, stem: int, orientations: int) -> torch.Tensor:
    """Give the matrix of the layer that sees pixels: ``(orientations, 1, window, outputs of a block)``.

    Parameters
    ----------
    weight
        ``(out, stem * stem, 3, 3)``.
    block
        Block of grid points of the stem.
    """
    outputs = weight.shape[0]
    pixels = weight.view(outputs, stem, stem, 3, 3).permute(0, 3, 1, 4, 2).reshape(outputs, 3 * stem, 3 * stem)
    turned = oriented(pixels, orientations)
    made = weight.new_zeros(orientations, (block.y + 2) * stem, (block.x + 2) * stem, block.y, block.x, outputs)
    for y in range(block.y):
        for x in range(block.x):
            made[:, y * stem : (y + 3) * stem, x * stem : (x + 3) * stem, y, x] = turned.permute(0, 2, 3, 1)
    return made.view(orientations, 1, -1, block.pixels * outputs)


def fine_matrix(weight: torch.Tensor, block: Block, orientations: int) -> torch.Tensor:
    """Give the matrix of a layer over features ``(out, in, 3, 3)``: ``(orientations, 1, window, outputs of a block)``."""
    outputs, inputs = weight.shape[:2]
    turned = oriented(weight, orientations).permute(0, 3, 4, 2, 1)
    made = weight.new_zeros(orientations, block.y + 2, block.x + 2, inputs, block.y, block.x, outputs)
    for y in range(block.y):
        for x in range(block.x):
            made[:, y : y + 3, x : x + 3, :, y, x] = turned
    return made.view(orientations, 1, -1, block.pixels * outputs)


def coarse_matrix(weight: torch.Tensor, block: Block, orientations: int) -> torch.Tensor:
    """Give the matrices of a layer over doubled features: ``(orientations, phases, window, outputs of a block)``.

    A phase is the place within a coarse pixel where a block begins. The window is the coarse pixels that the block sees.
    """
    outputs, inputs = weight.shape[:2]
    turned = oriented(weight, orientations).permute(0, 3, 4, 2, 1)
    phases = [(y, x) for y in range(2 // block.y) for x in range(2 // block.x)]
    window = block.coarse_rows, block.coarse_columns
    made = weight.new_zeros(orientations, len(phases), *window, inputs, block.y, block.x, outputs)
    for number, (phase_y, phase_x) in enumerate(phases):
        for y in range(block.y):
            for x in range(block.x):
                for tap_y in range(3):
                    for tap_x in range(3):
                        # Counted from the first coarse pixel of the window, which is the one before where it may be.
                        row = (phase_y + y + tap_y - 1) // 2 + 1 - phase_y
                        column = (phase_x + x + tap_x - 1) // 2 + 1 - phase_x
                        made[:, number, row, column, :, y, x] += turned[:, tap_y, tap_x]
    return made.view(orientations, len(phases), -1, block.pixels * outputs)


def output_matrix(weight: torch.Tensor, block: Block, stem: int, orientations: int) -> torch.Tensor:
    """Give the matrix of the last layer, ``(stem * stem, in, 3, 3)``: its outputs are the pixels of a block in their order."""
    inputs = weight.shape[1]
    # Turning an image turns the pixels of a grid point, and the taps, together.
    pixels = weight.view(stem, stem, inputs, 3, 3).permute(2, 3, 4, 0, 1)
    turned = []
    for number in range(orientations):
        back = pixels.rot90(-(number % 4), (1, 2)).rot90(-(number % 4), (3, 4))
        turned.append(back.flip(2).flip(4) if number >= 4 else back)
    taps = torch.stack(turned).permute(0, 2, 3, 1, 4, 5)
    made = weight.new_zeros(orientations, block.y + 2, block.x + 2, inputs, block.y, stem, block.x, stem)
    for y in range(block.y):
        for x in range(block.x):
            made[:, y : y + 3, x : x + 3, :, y, :, x] = taps
    return made.view(orientations, 1, -1, block.pixels * stem * stem)


def filled(matrix: torch.Tensor, step: int) -> torch.Tensor:
    """Append rows of zeros up to a multiple of `step`."""
    return torch.nn.functional.pad(matrix, (0, 0, 0, -matrix.shape[2] % step))


def in_parts(matrix: torch.Tensor, parts: int) -> torch.Tensor:
    """Group the outputs by program: ``(orientations, phases, parts, rows, outputs / parts)``, contiguous."""
    orientations, phases, rows, outputs = matrix.shape
    return matrix.view(orientations, phases, rows, parts, outputs // parts).permute(0, 1, 3, 2, 4).contiguous()
