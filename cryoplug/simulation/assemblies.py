"""Soluble molecules: chains of domains, symmetric assemblies, shells, rods and filaments, nucleic acid bundles."""

from __future__ import annotations

import numpy as np

from cryoplug.simulation.domains import (
    BASE_PAIR_DALTON,
    PROTEIN_ANGSTROM3_PER_DALTON,
    RESIDUE_DALTON,
    Cloud,
    domain_radius,
    duplex,
    joined,
    protein_domain,
    random_unit,
    rotation_onto,
    turn_about_z,
)
from cryoplug.simulation.specimen import PROTEIN_CONTRAST_VOLT, FloatArray, random_rotation
from cryoplug.simulation.symmetry import holds_together, point_group, touching_distance

DOMAIN_KDA = (6.0, 60.0)
"""Least and greatest mass of a domain; log-uniform."""
BEADS_WANTED = 12_000
"""Number of beads above which several residues are merged into one bead."""


def residues_per_bead(mass_kda: float, beads: int = BEADS_WANTED) -> int:
    """Return the number of residues in one bead with which a molecule has about `beads` beads."""
    return max(1, int(np.ceil(mass_kda * 1e3 / RESIDUE_DALTON / beads)))


def chain_of_domains(
    rng: np.random.Generator, mass_kda: float, *, per_bead: int
) -> tuple[Cloud, FloatArray, FloatArray]:
    """Make a subunit: domains that touch one another, from a compact cluster to a stretched chain.

    Parameters
    ----------
    rng
        Random generator.
    mass_kda
        Mass in kilodalton.
    per_bead
        Residues in each bead.

    Returns
    -------
    cloud, centres, radii
        The beads, centred on their centre of mass; and the balls ``(k, 3)``, ``(k,)`` that its domains fill.
    """
    masses = _domain_masses(rng, mass_kda)
    radii = np.array([domain_radius(mass) for mass in masses])
    centres = _grown(rng, radii, compactness=float(1 - 0.7 * rng.random() ** 2 * min(1.0, 6 / len(masses))))
    centres = centres - np.average(centres, axis=0, weights=masses)
    domains = [protein_domain(rng, float(mass), residues_per_bead=per_bead) for mass in masses]
    cloud = joined(domain.turned(np.eye(3), centre) for domain, centre in zip(domains, centres, strict=True))
    return cloud, centres, radii


def symmetric_assembly(
    rng: np.random.Generator, mass_kda: float, symmetry: str, *, nucleic_share: float = 0.0, beads: int = BEADS_WANTED
) -> Cloud:
    """Make an assembly of equal subunits that touch.

    Parameters
    ----------
    rng
        Random generator.
    mass_kda
        Mass of the whole assembly.
    symmetry
        A name that `point_group` knows.
    nucleic_share
        Part of the mass in double helices, one beside each subunit; 0 to 0.35.
    beads
        Approximate number of beads.
    """
    rotations = point_group(symmetry)
    each = mass_kda / len(rotations)
    per_bead = residues_per_bead(mass_kda, beads)
    cloud, centres, radii = chain_of_domains(rng, each * (1 - nucleic_share), per_bead=per_bead)
    if nucleic_share > 0:
        cloud, centres, radii = _with_duplex(rng, cloud, centres, radii, each * nucleic_share, per_bead)
    turn = random_rotation(rng)
    cloud, centres = cloud.turned(turn), centres @ turn.T
    directions = random_unit(rng, 12)
    if symmetry[0] == "C":
        directions[:, 0] = 0.0
        directions /= np.sqrt((directions**2).sum(axis=1, keepdims=True))
    distances = np.array([touching_distance(centres, radii, direction, rotations) for direction in directions])
    whole = [
        holds_together(centres + distance * direction, radii, rotations)
        for direction, distance in zip(directions, distances, strict=True)
    ]
    # The tightest way of those that hold together, or one of the three tightest: some assemblies are open.
    order = np.lexsort((distances, ~np.array(whole)))
    choice = int(order[0] if rng.random() < 0.6 else order[rng.integers(min(3, max(1, sum(whole))))])
    return cloud.turned(np.eye(3), directions[choice] * distances[choice]).copies(rotations)


def shell(rng: np.random.Generator, *, radius_angstrom: float, wall_angstrom: float, content: float) -> Cloud:
    """Make an icosahedral shell of flat capsomer-like domains, empty or filled.

    Parameters
    ----------
    rng
        Random generator.
    radius_angstrom
        Radius of the middle of the wall.
    wall_angstrom
        Thickness of the wall.
    content
        Density inside relative to protein; 0 for an empty shell.
    """
    rotations = point_group("I")
    area = 4 * np.pi * radius_angstrom**2
    footprint = float(rng.uniform(35, 70))
    count = int(np.clip(round(area / 60 / footprint**2), 1, 16))
    mass = area * wall_angstrom / PROTEIN_ANGSTROM3_PER_DALTON / 1e3
    inner = radius_angstrom - wall_angstrom / 2 - 8
    stuffed = 4 / 3 * np.pi * inner**3 / PROTEIN_ANGSTROM3_PER_DALTON / 1e3 if content > 0 else 0.0
    per_bead = residues_per_bead(mass, 14_000)
    side = np.sqrt(area / 60 / count)
    kinds = [
        protein_domain(
            rng,
            mass / 60 / count * float(rng.uniform(0.75, 1.0)),
            residues_per_bead=per_bead,
            proportions=(0.62 * wall_angstrom, 0.62 * side * aspect, 0.62 * side / aspect),
        )
        for aspect in rng.uniform(0.8, 1.25, min(count, 4))
    ]
    places = _spread_on_sphere(rng, count, rotations)
    unit = joined(
        kinds[index % len(kinds)].turned(
            rotation_onto(place, rng.uniform(0, 2 * np.pi)), place * (radius_angstrom + rng.normal(0, 2))
        )
        for index, place in enumerate(places)
    )
    parts = [unit.copies(rotations)]
    if content > 0:
        parts.append(_content(rng, inner, content, stuffed))
    return joined(parts)


def helical_assembly(
    rng: np.random.Generator, *, length_angstrom: float, subunit_kda: float, starts: int, rise_angstrom: float
) -> Cloud:
    """Make a filament or rod along z: a subunit repeated with a random twist and a rise, in one or several strands.

    Parameters
    ----------
    rng
        Random generator.
    length_angstrom
        Length from the first to the last subunit.
    subunit_kda
        Mass of a subunit.
    starts
        Strands around the axis.
    rise_angstrom
        Shift along the axis from one subunit to the next of its strand.
    """
    repeats = max(2, round(length_angstrom / rise_angstrom))
    mass = subunit_kda * repeats * starts
    cloud, centres, radii = chain_of_domains(rng, subunit_kda, per_bead=residues_per_bead(mass, 2 * BEADS_WANTED))
    turn = random_rotation(rng)
    cloud, centres = cloud.turned(turn), centres @ turn.T
    ring = point_group(f"C{starts}")
    twist, distance = _tightest_helix(rng, centres, radii, ring, rise_angstrom)
    steps = np.arange(repeats)
    rotations = np.concatenate([ring @ turn_about_z(twist * step) for step in steps])
    shifts = np.zeros((len(rotations), 3))
    shifts[:, 0] = np.repeat(steps - (repeats - 1) / 2, starts) * rise_angstrom
    return cloud.turned(np.eye(3), np.array([0, distance, 0])).copies(rotations, shifts)


def nucleic_bundle(rng: np.random.Generator, mass_kda: float, *, density: float) -> Cloud:
    """Make a compact bundle of short double helices, like a folded nucleic acid; density relative to protein."""
    pairs_left = max(12, round(mass_kda * 1e3 / BASE_PAIR_DALTON))
    rods: list[Cloud] = []
    while pairs_left > 0:
        pairs = min(pairs_left, int(rng.integers(10, 40)))
        pairs_left -= pairs
        rod = duplex(rng, pairs, density=density, persistence_angstrom=float(rng.uniform(150, 500)))
        if rods:
            direction = random_unit(rng, 1)[0]
            base = rods[int(rng.integers(max(0, len(rods) - 3), len(rods)))]
            side = np.cross(direction, random_unit(rng, 1)[0])
            end = base.points[int(rng.integers(len(base.points)))]
            rod = rod.turned(rotation_onto(direction), end + 20 * side / np.sqrt((side**2).sum()))
        rods.append(rod)
    return joined(rods)


def _domain_masses(rng: np.random.Generator, mass_kda: float) -> FloatArray:
    low, high = DOMAIN_KDA
    masses: list[float] = []
    while sum(masses) < mass_kda:
        masses.append(float(np.exp(rng.uniform(np.log(low), np.log(high)))))
    found = np.array(masses)
    return found * (mass_kda / found.sum())


def _grown(rng: np.random.Generator, radii: FloatArray, *, compactness: float) -> FloatArray:
    """Place balls one by one, each against an earlier one, so that none overlaps another deeply."""
    centres = np.zeros((len(radii), 3))
    for new in range(1, len(radii)):
        base = int(rng.integers(new)) if rng.random() < compactness else new - 1
        best, best_score = centres[base], -np.inf
        for _ in range(6):
            reach = 0.86 * (radii[base] + radii[new])
            candidates = centres[base] + reach * random_unit(rng, 24)
            apart = np.sqrt(((candidates[:, None] - centres[None, :new]) ** 2).sum(axis=-1))
            gaps = (apart - 0.8 * (radii[:new] + radii[new])).min(axis=1)
            middle = centres[:new].mean(axis=0)
            near = -np.sqrt(((candidates - middle) ** 2).sum(axis=1)) * (2 * compactness - 0.5)
            score = np.where(gaps >= 0, near, -1e6 + gaps)
            top = int(score.argmax())
            if score[top] > best_score:
                best, best_score = candidates[top], float(score[top])
            if best_score > -1e5:
                break
            base = int(rng.integers(new))
        centres[new] = best
    return centres


def _with_duplex(
    rng: np.random.Generator, cloud: Cloud, centres: FloatArray, radii: FloatArray, mass_kda: float, per_bead: int
) -> tuple[Cloud, FloatArray, FloatArray]:
    """Put a double helix beside a subunit, and add its turns to the balls."""
    pairs = max(6, round(mass_kda * 1e3 / BASE_PAIR_DALTON))
    thin = 0.25 if per_bead == 1 else 1.0
    helix = duplex(rng, pairs, density=float(rng.uniform(1.5, 2.0)), pairs_per_bead=thin)
    direction = random_unit(rng, 1)[0]
    side = np.cross(direction, random_unit(rng, 1)[0])
    side /= np.sqrt((side**2).sum())
    target = int(rng.integers(len(radii)))
    shift = centres[target] + side * (radii[target] + 9)
    helix = helix.turned(rotation_onto(direction), shift)
    balls = helix.points[:: max(1, len(helix.points) // 12)]
    return joined([cloud, helix]), np.concatenate([centres, balls]), np.concatenate([radii, np.full(len(balls), 11.0)])


def _spread_on_sphere(rng: np.random.Generator, count: int, rotations: FloatArray) -> FloatArray:
    """Give unit vectors in the asymmetric unit, pushed apart from one another and from all their copies."""
    points = random_unit(rng, count)
    size = np.sqrt(4 * np.pi / (count * len(rotations)))
    for step in range(25):
        copies = np.einsum("gij,nj->gni", rotations, points).reshape(-1, 3)
        apart = points[:, None] - copies[None]
        square = (apart**2).sum(axis=-1)
        square[square < 1e-12] = np.inf
        push = (apart / square[..., None] ** 1.5).sum(axis=1)
        length = np.sqrt((push**2).sum(axis=1, keepdims=True))
        points = points + push / np.maximum(length, 1e-12) * size * 0.3 * (1 - step / 25)
        points /= np.sqrt((points**2).sum(axis=1, keepdims=True))
    return points


def _content(rng: np.random.Generator, radius: float, density: float, mass_kda: float) -> Cloud:
    """Make strands that fill a ball: in shells, like packed nucleic acid, or without order."""
    spacing = max(11.0, (4 / 3 * np.pi * radius**3 / 12_000) ** (1 / 3))
    axis = np.arange(-radius, radius + spacing, spacing)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    points = points + rng.uniform(-0.45, 0.45, points.shape) * spacing
    distance = np.sqrt((points**2).sum(axis=1))
    points, distance = points[distance < radius], distance[distance < radius]
    order = float(rng.uniform(0, 0.8)) if rng.random() < 0.5 else 0.0
    layers = 1 + order * np.cos(2 * np.pi * (distance - radius) / 26.0) * np.exp((distance - radius) / 60.0)
    weight = layers * rng.uniform(0.4, 1.6, len(points))
    total = PROTEIN_CONTRAST_VOLT * density * 4 / 3 * np.pi * radius**3
    return Cloud(points, weight * (total / weight.sum()), mass_kda * density)


def _tightest_helix(
    rng: np.random.Generator, centres: FloatArray, radii: FloatArray, ring: FloatArray, rise: float
) -> tuple[float, float]:
    """Give twist (radian) and distance from the axis at which strands just touch: the closest of six draws."""
    wide = np.pi if len(ring) < 5 else 0.2
    found = []
    for twist in rng.uniform(-wide, wide, 6):
        distance, joins = _helix_radius(centres, radii, ring, float(twist), rise)
        found.append((not joins, distance, float(twist)))
    _, distance, twist = min(found)
    return twist, distance


def _helix_radius(
    centres: FloatArray, radii: FloatArray, ring: FloatArray, twist: float, rise: float
) -> tuple[float, bool]:
    """Give the distance from the axis at which a subunit just touches a neighbour, and whether strands touch one another."""
    steps = np.arange(0, 60)[: max(2, int(4 * radii.max() / rise) + 2)]
    near = np.concatenate([ring @ turn_about_z(twist * step) for step in steps])[1:]
    shifts = np.zeros((len(near), 3))
    shifts[:, 0] = np.repeat(steps * rise, len(ring))[1:]
    touch = radii[:, None] + radii[None, :]

    def gaps(distance: float, share: float) -> FloatArray:
        here = centres + np.array([0, distance, 0])
        there = np.einsum("gij,nj->gni", near, here) + shifts[:, None, :]
        return (np.sqrt(((here[None, :, None] - there[:, None]) ** 2).sum(axis=-1)) - share * touch).min(axis=(1, 2))

    low, high = 0.0, 5.0
    while gaps(high, 0.85).min() < 0 and high < 400:
        low, high = high, 1.5 * high
    while high - low > 1.0:
        middle = (low + high) / 2
        low, high = (low, middle) if gaps(middle, 0.85).min() >= 0 else (middle, high)
    contact = gaps(high, 1.15) < 0
    strand = np.arange(1, len(near) + 1) % len(ring)
    along, across = bool(contact[strand == 0].any()), bool(contact[strand != 0].any())
    return high, along and (across or len(ring) == 1)
