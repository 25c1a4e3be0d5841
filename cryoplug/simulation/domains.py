"""The parts of molecules: clouds of residue-like beads, as protein domains and nucleic acid duplexes.

A domain is cut out of a bundle of helices or a stack of sheets. Helices are beads wound around straight axes 10 angstrom
apart; sheets are strands 4.8 angstrom apart, in layers 10 angstrom apart. Each element has its own phase, tilt and length.
Then a smooth deformation bends the whole domain. So it has the texture of real domains at 5 to 12 angstrom, a rough surface,
and no lattice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cryoplug.simulation.specimen import PROTEIN_CONTRAST_VOLT, FloatArray

PROTEIN_ANGSTROM3_PER_DALTON = 1.21
"""Volume of protein: a partial specific volume of 0.73 cm^3/g."""
NUCLEIC_ANGSTROM3_PER_DALTON = 0.91
"""Volume of nucleic acid: 0.55 cm^3/g."""
RESIDUE_DALTON = 110.0
"""Mean mass of an amino acid residue."""
BASE_PAIR_DALTON = 650.0
"""Mean mass of a base pair."""

_HELIX = (1.5, np.deg2rad(100.0), 2.5)
"""An alpha helix: rise of a residue (angstrom), its turn (radian), radius of its beads (angstrom)."""
_HELIX_SPACING = 10.1
"""Distance of neighbouring helix axes; with the rise, a residue then has its 133 cubic angstrom."""
_STRAND_RISE, _STRAND_SPACING, _SHEET_SPACING = 3.3, 4.8, 9.0


@dataclass(frozen=True)
class Cloud:
    """The beads of a part of a molecule."""

    points: FloatArray
    """``(n, 3)``, angstrom, in the order z, y, x."""
    potential: FloatArray
    """``(n,)``, volt * angstrom^3: the integral of each bead's potential above that of ice."""
    mass_kda: float
    """Mass of the whole cloud, kilodalton."""

    def turned(self, rotation: FloatArray, shift: FloatArray | float = 0.0) -> Cloud:
        """Return the cloud rotated around the origin by ``(3, 3)``, then shifted by ``(3,)`` angstrom."""
        return Cloud(self.points @ rotation.T + shift, self.potential, self.mass_kda)

    def copies(self, rotations: FloatArray, shifts: FloatArray | None = None) -> Cloud:
        """Return the cloud repeated by each of ``(g, 3, 3)``, copy i then shifted by ``shifts[i]``."""
        points = np.einsum("gij,nj->gni", rotations, self.points)
        if shifts is not None:
            points = points + shifts[:, None, :]
        count = len(rotations)
        return Cloud(points.reshape(-1, 3), np.tile(self.potential, count), self.mass_kda * count)

    def kept(self, inside: np.ndarray) -> Cloud:
        """Return the beads for which `inside` is true; the mass is reduced like the potential."""
        share = float(self.potential[inside].sum() / self.potential.sum()) if len(self.potential) else 0.0
        return Cloud(self.points[inside], self.potential[inside], self.mass_kda * share)


def joined(clouds: Iterable[Cloud]) -> Cloud:
    """Return all clouds as one."""
    parts = list(clouds)
    return Cloud(
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.potential for part in parts]),
        sum(part.mass_kda for part in parts),
    )


def domain_radius(mass_kda: float) -> float:
    """Return the radius in angstrom of a ball of protein of that mass."""
    return float((3 * mass_kda * 1e3 * PROTEIN_ANGSTROM3_PER_DALTON / (4 * np.pi)) ** (1 / 3))


def protein_domain(
    rng: np.random.Generator,
    mass_kda: float,
    *,
    residues_per_bead: int = 1,
    proportions: tuple[float, float, float] | None = None,
    upright: bool = False,
) -> Cloud:
    """Make one compact domain around the origin.

    Parameters
    ----------
    rng
        Random generator.
    mass_kda
        Mass in kilodalton; the potential is that of protein of this mass in ice.
    residues_per_bead
        Residues in each bead, 1 or more. Above 3 the elements are thinner than a bead; then a jittered lattice fills the
        domain instead.
    proportions
        Relative lengths of the semi-axes along z, y, x; None draws them between 0.75 and 1.35.
    upright
        Whether the elements run within 15 degrees of z, like helices in a membrane; else in any direction.

    Returns
    -------
    Cloud
        Its volume follows from the mass; its surface is rough by about a tenth of its radius.
    """
    axes = np.asarray(proportions if proportions is not None else rng.uniform(0.75, 1.35, 3))
    semi = domain_radius(mass_kda) * axes / np.prod(axes) ** (1 / 3)
    reach = float(1.35 * semi.max()) + 3
    if residues_per_bead > 3:
        points = _jittered_lattice(rng, 1.25 * semi + 3, (133.0 * residues_per_bead) ** (1 / 3))
        group = np.zeros(len(points))
    else:
        make = _helices if upright or rng.random() < 0.6 else _sheets
        points, group = make(rng, reach, residues_per_bead)
        points = points @ _frame(rng, upright).T
    points = points + _waves(rng, points, amplitude=2.0, shortest=25.0)
    surface = 1 + _bumps(rng, points, 0.11, shortest=15.0, longest=2.5 * semi.max()) + group
    inside = np.sqrt(((points / semi) ** 2).sum(axis=1)) < surface
    if not inside.any():
        inside[np.argmin((points**2).sum(axis=1))] = True
    points = points[inside]
    weight = rng.uniform(0.7, 1.3, len(points))
    total = PROTEIN_CONTRAST_VOLT * PROTEIN_ANGSTROM3_PER_DALTON * 1e3 * mass_kda
    return Cloud(points, weight * (total / weight.sum()), mass_kda)


def duplex(
    rng: np.random.Generator,
    base_pairs: int,
    *,
    density: float = 1.7,
    persistence_angstrom: float = 400.0,
    pairs_per_bead: float = 0.25,
) -> Cloud:
    """Make a bent double helix through the origin: two strands of dense beads, bases between them.

    Parameters
    ----------
    rng
        Random generator.
    base_pairs
        Number of base pairs, 1 or more; each is 3 angstrom long.
    density
        Contrast relative to protein of the same volume; 1.5 to 2.
    persistence_angstrom
        Length over which the direction of the axis changes completely.
    pairs_per_bead
        1/4 for two backbone beads and two bases in each pair; 1 and more for beads on the axis.
    """
    rise, turn = 3.0, 2 * np.pi / 10.8
    steps = rng.standard_normal((base_pairs, 3)) * np.sqrt(rise / persistence_angstrom)
    direction = np.array([1.0, 0, 0]) + np.cumsum(steps, axis=0)
    direction /= np.sqrt((direction**2).sum(axis=1, keepdims=True))
    axis = np.cumsum(direction * rise, axis=0)
    axis -= axis[len(axis) // 2]
    total = PROTEIN_CONTRAST_VOLT * density * NUCLEIC_ANGSTROM3_PER_DALTON * BASE_PAIR_DALTON
    mass = base_pairs * BASE_PAIR_DALTON / 1e3
    if pairs_per_bead >= 1:
        points = axis[:: round(pairs_per_bead)]
        return Cloud(points, np.full(len(points), total * base_pairs / len(points)), mass)
    side = np.cross(direction, np.array([0.0, 0.3, 1.0]))
    side /= np.sqrt((side**2).sum(axis=1, keepdims=True))
    other = np.cross(direction, side)
    angle = turn * np.arange(base_pairs)[:, None] + rng.uniform(0, 2 * np.pi)
    points = np.concatenate(
        [
            axis + radius * (np.cos(angle + offset) * side + np.sin(angle + offset) * other)
            for radius, offset in ((9.0, 0.0), (9.0, 2.4), (3.5, 0.5), (3.5, 1.9))
        ]
    )
    share = np.repeat([0.29, 0.29, 0.21, 0.21], base_pairs) * rng.uniform(0.85, 1.15, 4 * base_pairs)
    return Cloud(points, share * (total * base_pairs / share.sum()), mass)


def random_unit(rng: np.random.Generator, count: int) -> FloatArray:
    """Draw unit vectors ``(count, 3)``, uniform on the sphere."""
    vectors = rng.standard_normal((count, 3))
    return vectors / np.maximum(np.sqrt((vectors**2).sum(axis=1, keepdims=True)), 1e-12)


def rotation_onto(direction: FloatArray, spin: float = 0.0) -> FloatArray:
    """Return a rotation ``(3, 3)`` that turns by `spin` around z, then turns z (the first axis) onto `direction`."""
    target = direction / np.sqrt((direction**2).sum())
    helper = np.array([0.0, 1.0, 0.0]) if abs(target[1]) < 0.9 else np.array([0.0, 0.0, 1.0])
    second = helper - target * (helper @ target)
    second /= np.sqrt((second**2).sum())
    frame = np.stack([target, second, np.cross(target, second)], axis=1)
    return frame @ turn_about_z(spin)


def turn_about_z(angle: float) -> FloatArray:
    """Return a rotation ``(3, 3)`` by `angle` radian around z, the first axis."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])


def _frame(rng: np.random.Generator, upright: bool) -> FloatArray:
    direction = random_unit(rng, 1)[0]
    if upright:
        direction = np.array([1.0, 0, 0]) + 0.15 * direction
    return rotation_onto(direction, rng.uniform(0, 2 * np.pi))


def _helices(rng: np.random.Generator, reach: float, per_bead: int) -> tuple[FloatArray, FloatArray]:
    """Make parallel helices along z out to `reach`; also give, for each bead, how its element changes the surface."""
    rise, turn, radius = _HELIX
    steps = np.arange(-reach / rise, reach / rise, per_bead)
    count = int(reach / _HELIX_SPACING) + 1
    column, row = (grid.ravel() for grid in np.mgrid[-count : count + 1, -count - 2 : count + 3])
    y = (column + 0.5 * (row % 2)) * _HELIX_SPACING
    x = row * _HELIX_SPACING * np.sqrt(3) / 2
    near = np.hypot(y, x) < reach
    y, x = y[near], x[near]
    rods = len(y)
    phase = rng.uniform(0, 2 * np.pi, (rods, 1))
    slide = rng.uniform(0, rise * per_bead, (rods, 1))
    angle = turn * steps + phase
    wide = radius if per_bead < 3 else 0.0
    tilt = rng.normal(0, 0.12, (2, rods, 1))
    z = rise * steps + slide
    offset = rng.normal(0, 0.9, (2, rods, 1))
    points = np.stack(
        [
            np.broadcast_to(z, angle.shape),
            y[:, None] + offset[0] + tilt[0] * z + wide * np.cos(angle),
            x[:, None] + offset[1] + tilt[1] * z + wide * np.sin(angle),
        ],
        axis=-1,
    )
    return points.reshape(-1, 3), np.repeat(rng.normal(0, 0.08, rods), len(steps))


def _sheets(rng: np.random.Generator, reach: float, per_bead: int) -> tuple[FloatArray, FloatArray]:
    """Make strands along z in layers across x; each layer is turned by about 20 degrees against the one below."""
    steps = np.arange(-reach, reach, _STRAND_RISE * per_bead)
    strands = np.arange(-reach, reach, _STRAND_SPACING)
    layers = np.arange(-reach, reach, _SHEET_SPACING) + rng.uniform(0, _SHEET_SPACING)
    x, y, z = (grid.ravel() for grid in np.meshgrid(layers, strands, steps, indexing="ij"))
    number = np.repeat(np.arange(len(layers) * len(strands)), len(steps))
    layer = number // len(strands)
    elements = len(layers) * len(strands)
    slide = rng.uniform(0, _STRAND_RISE * per_bead, elements)
    z = z + slide[number]
    y = y + rng.normal(0, 0.4, elements)[number]
    x = x + rng.normal(0, 0.5, elements)[number] + 0.9 * np.where(np.arange(len(z)) % 2, 1, -1)
    turn = (0.35 * np.arange(len(layers)) + rng.normal(0, 0.15, len(layers)))[layer]
    points = np.stack([np.cos(turn) * z - np.sin(turn) * y, np.sin(turn) * z + np.cos(turn) * y, x], axis=-1)
    return points, rng.normal(0, 0.08, elements)[number]


def _jittered_lattice(rng: np.random.Generator, half: FloatArray, spacing: float) -> FloatArray:
    axes = [np.arange(-extent - spacing, extent + spacing, spacing) for extent in half]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return points + rng.uniform(-0.4, 0.4, points.shape) * spacing


def _waves(rng: np.random.Generator, points: FloatArray, *, amplitude: float, shortest: float) -> FloatArray:
    """Displace each point smoothly: three transverse waves of 1 to 3 times the shortest length."""
    shift = np.zeros_like(points)
    for direction, length in zip(random_unit(rng, 3), rng.uniform(shortest, 3 * shortest, 3), strict=True):
        push = np.cross(direction, random_unit(rng, 1)[0])
        shift += amplitude * np.sin(points @ direction * (2 * np.pi / length) + rng.uniform(0, 6.28))[:, None] * push
    return shift


def _bumps(
    rng: np.random.Generator, points: FloatArray, amplitude: float, *, shortest: float, longest: float
) -> FloatArray:
    """Draw a smooth function of the place with standard deviation `amplitude`: a sum of five waves."""
    lengths = np.exp(rng.uniform(np.log(shortest), np.log(max(longest, 1.5 * shortest)), 5))
    waves = np.sin(points @ (random_unit(rng, 5) * (2 * np.pi / lengths[:, None])).T + rng.uniform(0, 6.28, 5))
    return amplitude * waves.sum(axis=1) * np.sqrt(2 / 5)
