"""A particle from a density map: voxels above a threshold become Gaussian blobs, each with its share of the potential."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryoplug.errors import InputError
from cryoplug.simulation.coarse import cells_of, gathered
from cryoplug.simulation.specimen import PROTEIN_CONTRAST_VOLT, FloatArray, ParticleModel

MAX_VOXELS = 20_000_000
"""Most voxels above the threshold."""
MAX_BLOBS = 100_000
"""Most blobs of a map, because every blob is drawn for every particle. More voxels are merged, cell by cell."""
BLOB_WIDTH_VOXELS = 0.6
"""Standard deviation of a blob, in voxels: wide enough that the lattice of voxels does not show in a projection."""


@dataclass(frozen=True)
class DensityMap:
    """A molecule's density, as deposited."""

    voxels: npt.NDArray[np.float32]
    """``(z, y, x)``; density is positive, and only ratios of values count."""
    voxel_size_angstrom: float
    """Side of a voxel, above 0, equal along all axes."""
    threshold: float | None = None
    """Voxels above this value belong to the molecule; None takes the mean plus one standard deviation."""
    name: str = "map"
    """Name of the particles."""

    @property
    def level(self) -> float:
        """The threshold that is used."""
        if self.threshold is not None:
            return float(self.threshold)
        return float(self.voxels.mean(dtype=np.float64) + self.voxels.std(dtype=np.float64))


def particle_from_map(density: DensityMap) -> ParticleModel:
    """Make a particle from a map, centred on its centre of mass.

    The densities above the threshold are scaled so that their mean is the contrast of protein in ice.

    Raises
    ------
    InputError
        No voxel lies above the threshold, or too many do.
    """
    if not np.isfinite(density.voxels).all():
        raise InputError(f"map {density.name}: some voxels are not numbers (NaN or infinite); repair the map")
    inside = density.voxels > density.level
    count = int(inside.sum())
    if not 0 < count <= MAX_VOXELS:
        raise InputError(
            f"map {density.name}: {count} voxels lie above {density.level:g} (allowed: 1 to {MAX_VOXELS}); "
            "give another threshold, or a map with larger voxels"
        )
    weights: FloatArray = density.voxels[inside].astype(np.float64)
    if weights.min() < 0:
        raise InputError(f"map {density.name}: threshold {density.level:g} takes in negative density; give one above 0")
    points: FloatArray = np.argwhere(inside).astype(np.float64) * density.voxel_size_angstrom
    points -= np.average(points, axis=0, weights=weights)
    cells = cells_of(points, at_most=MAX_BLOBS, side_angstrom=2 * density.voxel_size_angstrom)
    centres, gathered_weights, variance = gathered(points, weights, cells)
    potential: FloatArray = PROTEIN_CONTRAST_VOLT * density.voxel_size_angstrom**3 * gathered_weights / weights.mean()
    width = float(np.sqrt((BLOB_WIDTH_VOXELS * density.voxel_size_angstrom) ** 2 + variance))
    return ParticleModel(density.name, centres, potential, blob_width_angstrom=width, kind="map")
