"""Weights of cryo_cnn as the matrices of the GPU kernels, and the kernels' sums as gradients: tables of indices.

Two neighbouring pixels share one row of each matrix product, so every weight appears up to twice. The letters q, p, j and i
are those of `cryoplug.kernels.triton_cryo_cnn`. Everything here is numpy, and is checked against plain convolutions.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

CHANNELS = 16
PARAMETER_COUNT = 2625
W1_START, B1_START, W2_START, B2_START, W3_START, B3_START = 0, 144, 160, 2464, 2480, 2624
"""Index where each tensor begins in the flat parameters, in the order of ``module.parameters()``."""
_ZERO, _OUTSIDE = PARAMETER_COUNT, PARAMETER_COUNT + 1
CONSTANTS = (0.0, -60000.0)
"""Two constants after the parameters. The second pulls a pixel beyond the border below zero, so that the ReLU makes it 0 and
conv2 sees zero padding. Half precision reaches -65504; a hidden value above 60000 would overflow inside the image, too."""

PARTIAL_COUNT = 10240
"""Number of sums that one program of the backward kernel writes."""


@dataclass(frozen=True)
class Tables:
    """Indices between parameters and matrices."""

    unfold: np.ndarray
    """For each element of all matrices, in one flat array: its index in the parameters followed by `CONSTANTS`."""
    fold: np.ndarray
    """``(2624, 2)``: for each gradient, except that of the last bias, the two sums that make it up."""
    starts: dict[str, int]
    """Index where each matrix begins: W1, W2, W3 forward; W1P, W2T, W3E backward."""


@functools.cache
def tables() -> Tables:
    """Return the tables; they are the same for every image."""
    matrices = {
        "W1": _first_layer(range(4)),
        "W2": _second_layer(forward=True),
        "W3": _third_layer(),
        "W1P": _first_layer((1, 2)),
        "W2T": _second_layer(forward=False),
        "W3E": _third_layer_slopes(),
    }
    starts, start = {}, 0
    for name, matrix in matrices.items():
        starts[name] = start
        start += matrix.size
    return Tables(np.concatenate([matrix.ravel() for matrix in matrices.values()]), _fold(), starts)


def border_flags(width: int, columns: int) -> np.ndarray:
    """Return flags ``(2, columns / 2, 8)`` for all pairs: of a row inside the image, then of a row outside.

    Flag q of a pair is 1 if column ``c - 1 + q`` is inside; flag 4 + q is 1 if it is not.
    """
    column = np.arange(0, columns, 2)[:, None] - 1 + np.arange(4)[None, :]
    inside = (column >= 0) & (column < width)
    flags = np.zeros((2, columns // 2, 8), np.float32)
    flags[0, :, :4], flags[0, :, 4:] = inside, ~inside
    flags[1, :, 4:] = 1.0
    return flags


def _first_layer(quads: range | tuple[int, ...]) -> np.ndarray:
    # (j, i) -> (q, channel)
    matrix = np.full((4, 8, len(quads), CHANNELS), _ZERO, np.int64)
    channels = np.arange(CHANNELS)
    for place, q in enumerate(quads):
        for ky in range(3):
            for kx in range(3):
                matrix[ky, q + kx, place] = W1_START + channels * 9 + ky * 3 + kx
        matrix[3, q, place] = B1_START + channels
        matrix[3, 4 + q, place] = _OUTSIDE
    return matrix


def _second_layer(*, forward: bool) -> np.ndarray:
    # row of the window, (q, channel read) -> (p, channel written)
    matrix = np.full((3, 4, CHANNELS, 2, CHANNELS), _ZERO, np.int64)
    read, written = np.arange(CHANNELS)[:, None], np.arange(CHANNELS)[None, :]
    for row in range(3):
        for p in range(2):
            for kx in range(3):
                if forward:
                    matrix[row, p + kx, :, p] = W2_START + (written * CHANNELS + read) * 9 + row * 3 + kx
                else:
                    matrix[row, p + 2 - kx, :, p] = W2_START + (read * CHANNELS + written) * 9 + (2 - row) * 3 + kx
    return matrix


def _third_layer() -> np.ndarray:
    # row of the window, (q, channel) -> p, and 14 columns of zeros, because a matrix has at least 16
    matrix = np.full((3, 4, CHANNELS, 16), _ZERO, np.int64)
    for ky in range(3):
        for p in range(2):
            for kx in range(3):
                matrix[ky, p + kx, :, p] = W3_START + np.arange(CHANNELS) * 9 + ky * 3 + kx
    return matrix


def _third_layer_slopes() -> np.ndarray:
    # (j, i) -> (q, channel)
    matrix = np.full((4, 8, 4, CHANNELS), _ZERO, np.int64)
    for q in range(4):
        for ky in range(3):
            for kx in range(3):
                matrix[2 - ky, q + 2 - kx, q] = W3_START + np.arange(CHANNELS) * 9 + ky * 3 + kx
    return matrix


def _fold() -> np.ndarray:
    # Places among the sums: three (q, out; p, in) of 64 x 32, (q, channel; j, i) 64 x 32, (j, i; p, channel) 32 x 32,
    # (q, channel; any of 16 equal columns) 64 x 16.
    second = np.arange(6144).reshape(3, 4, CHANNELS, 2, CHANNELS)
    third = 6144 + np.arange(2048).reshape(4, CHANNELS, 4, 8)
    first = 8192 + np.arange(1024).reshape(4, 8, 2, CHANNELS)
    bias2 = 9216 + np.arange(1024).reshape(4, CHANNELS, 16)
    fold = np.empty((B3_START, 2), np.int64)
    w1 = fold[W1_START:B1_START].reshape(CHANNELS, 3, 3, 2)
    w2 = fold[W2_START:B2_START].reshape(CHANNELS, CHANNELS, 3, 3, 2)
    w3 = fold[W3_START:B3_START].reshape(CHANNELS, 3, 3, 2)
    for p in range(2):
        q = p + 1
        fold[B1_START:W2_START, p] = first[3, q, p]
        fold[B2_START:W3_START, p] = bias2[q, :, 0]
        for ky in range(3):
            for kx in range(3):
                w1[:, ky, kx, p] = first[ky, q + kx, p]
                w2[:, :, ky, kx, p] = second[2 - ky, p + 2 - kx, :, p]
                w3[:, ky, kx, p] = third[q, :, 2 - ky, q + 2 - kx]
    return fold
