"""Sums over large images, a few rows at a time, which stay in the processor's cache; no image is copied as a whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_VALUES = 1 << 15
"""Values at a time: 256 kB in float64."""


def row_bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Cut an image ``(y, x)`` into bands of rows."""
    rows = max(1, _VALUES // shape[1])
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))


def means_and_covariances(
    *images: npt.NDArray[np.floating],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Give the mean of each image, and the covariance of each with each, all in float64.

    Parameters
    ----------
    images
        At least one; of equal shape, not empty.
    """
    flat = [np.asarray(image).reshape(-1) for image in images]
    means = np.array([image.mean(dtype=np.float64) for image in flat])
    sums = np.zeros((len(flat), len(flat)))
    for start in range(0, flat[0].size, _VALUES):
        parts = [
            np.subtract(image[start : start + _VALUES], mean, dtype=np.float64)
            for image, mean in zip(flat, means, strict=True)
        ]
        for row, column in itertools.combinations_with_replacement(range(len(parts)), 2):
            sums[row, column] += inner_product(parts[row], parts[column])
    return means, (sums + np.triu(sums, 1).T) / flat[0].size


def inner_product(one: npt.NDArray[np.floating], two: npt.NDArray[np.floating]) -> float:
    """Give the sum of the products, on one core: the threads of `numpy.dot` would mostly wait for one another."""
    return float(np.einsum("i,i->", one, two))


def mean_square_difference(one: npt.NDArray[np.floating], two: npt.NDArray[np.floating]) -> float:
    """Give the mean of ``(one - two)^2`` of two images of equal shape, in float64; 0 if they are equal."""
    left, right = np.asarray(one).reshape(-1), np.asarray(two).reshape(-1)
    total = 0.0
    for start in range(0, left.size, _VALUES):
        difference = np.subtract(left[start : start + _VALUES], right[start : start + _VALUES], dtype=np.float64)
        total += inner_product(difference, difference)
    return total / left.size
