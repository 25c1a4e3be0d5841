"""Fewer blobs for the same particle: those within a cell become one, at their centre of mass."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cryoplug.simulation.specimen import FloatArray


def cells_of(positions: FloatArray, *, at_most: int, side_angstrom: float) -> npt.NDArray[np.int64]:
    """Return each point's cell of a cubic lattice; the cells that hold points are numbered from 0 on.

    Parameters
    ----------
    positions
        ``(n, 3)``, angstrom.
    at_most
        Number of cells that are allowed, 1 or more. As many points or fewer keep a cell each.
    side_angstrom
        Side of a cell to begin with; it grows until there are few enough.
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
    """Return the centre ``(m, 3)`` and the weight ``(m,)`` of each cell, and the variance that points have within theirs.

    Parameters
    ----------
    positions, weights
        ``(n, 3)`` and ``(n,)``; weights above 0.
    cells
        Each point's cell, as `cells_of` gives them.

    Returns
    -------
    centres, weights, variance
        The last one along one axis, angstrom^2, weighted: what to add to the variance of a blob.
    """
    total: FloatArray = np.bincount(cells, weights).astype(np.float64)
    centres = np.stack([np.bincount(cells, weights * positions[:, axis]) / total for axis in range(3)], axis=1)
    variance = np.average(((positions - centres[cells]) ** 2).mean(axis=1), weights=weights)
    return centres, total, float(variance)
