"""Fewer blobs for the same particle: all blobs in a cell become one, at their centre of mass."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cryoplug.simulation.specimen import FloatArray


def cells_of(positions: FloatArray, *, at_most: int, side_angstrom: float) -> npt.NDArray[np.int64]:
    """Return the cell of each point in a cubic lattice; cells with points are numbered from 0.

    Parameters
    ----------
    positions
        ``(n, 3)``, angstrom.
    at_most
        Most cells, 1 or more. With fewer points, each keeps its own cell.
    side_angstrom
        First side of a cell; it grows until there are few enough cells.
    """
    if len(positions) <= at_most:
        return np.arange(len(positions))
    side = side_angstrom
    while True:
        places = np.floor((positions - positions.min(axis=0)) / side).astype(np.int64)
        extent = places.max(axis=0) + 1
        flat = (places[:, 0] * extent[1] + places[:, 1]) * extent[2] + places[:, 2]
        names, cells = np.unique(flat, return_inverse=True)
        if len(names) <= at_most:
            return cells.astype(np.int64)
        side *= max(1.05, 0.95 * (len(names) / at_most) ** (1 / 3))


def gathered(
    positions: FloatArray, weights: FloatArray, cells: npt.NDArray[np.int64]
) -> tuple[FloatArray, FloatArray, float]:
    """Return centre ``(m, 3)`` and weight ``(m,)`` of each cell, and the variance of points within their cells.

    Parameters
    ----------
    positions, weights
        ``(n, 3)`` and ``(n,)``; weights above 0.
    cells
        Each point's cell, as `cells_of` gives them.

    Returns
    -------
    centres, weights, variance
        The last one is the weighted variance along one axis, angstrom^2, to add to the variance of a blob.
    """
    total: FloatArray = np.bincount(cells, weights).astype(np.float64)
    centres = np.stack([np.bincount(cells, weights * positions[:, axis]) / total for axis in range(3)], axis=1)
    variance = np.average(((positions - centres[cells]) ** 2).mean(axis=1), weights=weights)
    return centres, total, float(variance)
