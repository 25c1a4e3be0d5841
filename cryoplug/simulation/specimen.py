"""A particle as a cloud of Gaussian blobs of electrostatic potential; and five invented shapes.

The projection of a Gaussian is a Gaussian again, so any orientation needs only the rotated centres. Flexibility, radiation
damage and multiple scattering are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PROTEIN_CONTRAST_VOLT = 2.5
"""Mean inner potential of protein (about 7 V) minus that of vitreous ice (about 4.5 V), Vulovic et al. 2013, rounded."""

BLOB_SPACING_ANGSTROM = 9.0
"""Spacing of the lattice around which blobs are placed."""

BLOB_WIDTH_ANGSTROM = 4.5
"""Standard deviation of a blob: half the spacing, so that the inside of a particle is nearly even."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ParticleModel:
    """One kind of particle, centred, in its own frame."""

    name: str
    """``sphere``, ``shell``, ``rod``, ``ring`` or ``cluster``; the name of a map or a structure; for a random molecule, its
    kind, symmetry and mass."""
    points_angstrom: npt.NDArray[np.floating]
    """Centres of the blobs, ``(n, 3)`` in the order z, y, x."""
    blob_volt_angstrom3: float | npt.NDArray[np.floating]
    """Integral of the potential of one blob over space: one number for all blobs, or ``(n,)``."""
    blob_width_angstrom: float = BLOB_WIDTH_ANGSTROM
    """Standard deviation of a blob."""
    kind: str = "shape"
    """Kind of particle: ``shape``, ``map``, ``model``, or a kind of `molecules.MoleculeDistribution`."""
    mass_kda: float | None = None
    """Molecular mass in kilodalton; None if unknown."""

    @property
    def radius_angstrom(self) -> float:
        """Radius of the ball around the origin that contains every blob to three standard deviations."""
        return float(np.sqrt((self.points_angstrom**2).sum(axis=1).max()) + 3 * self.blob_width_angstrom)


def particle_models(rng: np.random.Generator) -> tuple[ParticleModel, ...]:
    """Make one particle of each shape.

    Parameters
    ----------
    rng
        Draws the jitter of the blobs and the lobes of the cluster.

    Returns
    -------
    tuple of ParticleModel
        Solid sphere (diameter 130 angstrom), hollow shell (230), rod (200 x 70), ring (170), irregular cluster (about
        150).
    """
    lobes = _cluster_lobes(rng)
    shapes: tuple[tuple[str, float, Callable[[FloatArray], npt.NDArray[np.bool_]]], ...] = (
        ("sphere", 65.0, lambda p: _norm(p) <= 65),
        ("shell", 115.0, lambda p: (_norm(p) <= 115) & (_norm(p) >= 90)),
        ("rod", 100.0, lambda p: (_norm(p[:, 1:]) <= 35) & (np.abs(p[:, 0]) <= 100)),
        ("ring", 85.0, lambda p: np.hypot(_norm(p[:, 1:]) - 58, p[:, 0]) <= 27),
        ("cluster", 110.0, lambda p: np.any([_norm(p - centre) <= radius for centre, radius in lobes], axis=0)),
    )
    return tuple(_filled(name, extent, inside, rng) for name, extent, inside in shapes)


def random_rotation(rng: np.random.Generator) -> FloatArray:
    """Draw a rotation matrix ``(3, 3)``, uniform over all orientations, from a normalized random quaternion."""
    w, x, y, z = _unit(rng.standard_normal(4))
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _filled(
    name: str, extent: float, inside: Callable[[FloatArray], npt.NDArray[np.bool_]], rng: np.random.Generator
) -> ParticleModel:
    spacing = BLOB_SPACING_ANGSTROM
    axis = np.arange(-extent - spacing, extent + 1.5 * spacing, spacing)
    lattice = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    points = lattice + rng.uniform(-0.4, 0.4, size=lattice.shape) * spacing
    points = points[inside(points)]
    return ParticleModel(name, points - points.mean(axis=0), PROTEIN_CONTRAST_VOLT * spacing**3)


def _cluster_lobes(rng: np.random.Generator) -> list[tuple[FloatArray, float]]:
    """Make six balls, each overlapping the one before it or the first."""
    lobes: list[tuple[FloatArray, float]] = [(np.zeros(3), 38.0)]
    for _ in range(5):
        base, base_radius = lobes[int(rng.integers(min(2, len(lobes))))]
        radius = float(rng.uniform(20, 32))
        lobes.append((base + _unit(rng.standard_normal(3)) * 0.85 * (base_radius + radius) * 0.9, radius))
    return lobes


def _norm(vectors: FloatArray) -> FloatArray:
    return np.sqrt((vectors**2).sum(axis=-1))


def _unit(vector: FloatArray) -> FloatArray:
    return vector / np.sqrt((vector**2).sum())
