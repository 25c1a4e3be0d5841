"""Where particles lie: turned so that they fit in the ice, scattered so that their projections hardly overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryoplug.simulation.molecules import rotation_in_ice
from cryoplug.simulation.specimen import FloatArray, ParticleModel

TRIES = 40
"""Places to try for one particle before it is left out."""
COVERAGE = 0.25
"""Part of the field that particles cover if no number is given: crowded, but not touching."""


@dataclass(frozen=True)
class TrueParticle:
    """One particle of a micrograph, as it really lies there."""

    model: ParticleModel
    """The kind of particle."""
    number: int
    """Number of its model among those of the micrograph, from 1."""
    y_px: float
    """Row of its centre of mass; the centre of pixel 0 is 0. The first row of an MRC is row 0."""
    x_px: float
    """Column of its centre of mass, in the same way."""
    depth_angstrom: float
    """Depth below the middle of the ice, as the beam runs; its underfocus is larger by as much."""
    rotation: FloatArray
    """``(3, 3)``, applied to the model's (z, y, x); the beam runs along z."""


def place_particles(
    models: Sequence[ParticleModel],
    count: int | None,
    *,
    extent_angstrom: tuple[float, float],
    thickness_angstrom: float,
    rng: np.random.Generator,
) -> list[tuple[int, float, float, float, FloatArray]]:
    """Scatter particles so that their projections do not overlap by more than a tenth.

    Parameters
    ----------
    models
        The kinds of particles, equally likely.
    count
        Number of particles; None takes as many as cover a quarter of the field. One that finds no place in 40 tries is
        left out.
    extent_angstrom
        Height and width of the field; centres lie inside, so particles at the border are cut.
    thickness_angstrom
        Thickness of the ice: particles are turned so that they fit, and lie anywhere between its surfaces.
    rng
        Random generator.

    Returns
    -------
    list of (model index, y, x, depth, rotation)
        Places in angstrom.
    """
    if count is None:
        area = float(np.mean([_area(model) for model in models]))
        count = max(1, round(COVERAGE * extent_angstrom[0] * extent_angstrom[1] / area))
    placed: list[tuple[int, float, float, float, FloatArray]] = []
    taken = _Discs()
    for _ in range(count):
        choice = int(rng.integers(len(models)))
        model = models[choice]
        rotation = rotation_in_ice(model, rng, thickness_angstrom=thickness_angstrom)
        discs, extent = _footprint(model, rotation)
        depth = float(rng.uniform(-0.5, 0.5)) * max(thickness_angstrom - extent, 0.0)
        for y, x in rng.uniform((0, 0), extent_angstrom, size=(TRIES, 2)):
            here = discs + np.array([y, x, 0.0])
            if taken.free(here):
                taken.add(here)
                placed.append((choice, float(y), float(x), depth, rotation))
                break
    return placed


def hidden_part(particle: TrueParticle, opaque: npt.NDArray[np.float32], pixel_size_angstrom: float) -> float:
    """Return the part of a particle's projection on the micrograph that dirt hides, 0 to 1.

    Parameters
    ----------
    particle
        The particle.
    opaque
        The micrograph ``(y, x)``, 1 where no particle can be seen, 0 elsewhere.
    pixel_size_angstrom
        Its pixel size.
    """
    places = _sample(particle.model) @ particle.rotation[1:].T / pixel_size_angstrom + (particle.y_px, particle.x_px)
    rows, columns = np.rint(places).astype(int).T
    inside = (rows >= 0) & (rows < opaque.shape[0]) & (columns >= 0) & (columns < opaque.shape[1])
    return float(opaque[rows[inside], columns[inside]].mean()) if inside.any() else 0.0


class _Discs:
    """Discs (y, x, radius) that are occupied, in an array that grows."""

    def __init__(self) -> None:
        self._rows: FloatArray = np.zeros((256, 3))
        self._count = 0

    def free(self, discs: FloatArray) -> bool:
        """Say whether discs overlap the occupied ones by less than a tenth."""
        others = self._rows[: self._count]
        apart = np.hypot(discs[:, None, 0] - others[None, :, 0], discs[:, None, 1] - others[None, :, 1])
        return bool(np.all(apart >= 0.9 * (discs[:, None, 2] + others[None, :, 2])))

    def add(self, discs: FloatArray) -> None:
        """Occupy discs."""
        while self._count + len(discs) > len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._rows[self._count : self._count + len(discs)] = discs
        self._count += len(discs)


def _sample(model: ParticleModel) -> FloatArray:
    points = model.points_angstrom
    return points[:: max(1, len(points) // 400)].astype(np.float64)


def _footprint(model: ParticleModel, rotation: FloatArray) -> tuple[FloatArray, float]:
    """Give discs ``(k, 3)`` that cover the projection (several if it is long), and the extent along the beam."""
    turned = _sample(model) @ rotation.T
    margin = 2 * model.blob_width_angstrom
    flat = turned[:, 1:]
    axes: npt.NDArray[np.float64] = np.linalg.eigh(np.cov(flat.T) if len(flat) > 1 else np.eye(2))[1].T[::-1]
    along = flat @ axes.T
    middle = (along.max(axis=0) + along.min(axis=0)) / 2
    half = np.ptp(along, axis=0) / 2 + margin
    long, short = float(half.max()), float(half.min())
    long_axis, centre = axes[int(half.argmax())], middle @ axes
    extent = float(np.ptp(turned[:, 0])) + 2 * margin
    if long < 1.3 * short:
        return np.array([[*centre, long]]), extent
    count = int(np.ceil(long / short))
    steps = np.linspace(-(long - short), long - short, count)
    return np.column_stack([centre + steps[:, None] * long_axis, np.full(count, short)]), extent


def _area(model: ParticleModel) -> float:
    """Give the area of the ellipse with the two longest principal extents."""
    points = _sample(model)
    axes = np.linalg.eigh(np.cov(points.T))[1] if len(points) > 1 else np.eye(3)
    half = np.sort(np.ptp(points @ axes, axis=0))[1:] / 2 + 2 * model.blob_width_angstrom
    return float(np.pi * half[0] * half[1])
