"""Molecules with lipid or detergent: vesicles, bilayer patches, nanodiscs and micelles, with proteins that cross them.

A bilayer is two dense leaflets of headgroups, 36 to 42 angstrom apart, with tails between them that differ little from the
ice around. A protein that crosses it is an upright bundle of helices with soluble domains above and below.
"""

from __future__ import annotations

import numpy as np

from cryoplug.simulation.assemblies import residues_per_bead, symmetric_assembly
from cryoplug.simulation.domains import Cloud, joined, protein_domain, rotation_onto, turn_about_z
from cryoplug.simulation.specimen import PROTEIN_CONTRAST_VOLT, FloatArray

HEAD_VOLT_ANGSTROM = (20.0, 36.0)
"""Potential of a leaflet of headgroups, integrated across the leaflet."""
TAILS_RELATIVE = (-0.15, 0.3)
"""Contrast of the tails relative to protein's."""
MIDDLE_POINTS = 11_000
"""Most points in the middle plane of a bilayer: each gives two headgroups, every fourth two tails."""
LIPID_DALTON, LIPID_AREA = 750.0, 65.0
"""Mass of a lipid, and its area in a leaflet in square angstrom."""


def membrane_protein(rng: np.random.Generator, mass_kda: float, *, beads: int = 12_000) -> tuple[Cloud, float]:
    """Make a protein that crosses a membrane whose normal is z and whose middle is at z = 0.

    Parameters
    ----------
    rng
        Random generator.
    mass_kda
        Mass of the whole protein; a third to four fifths of it lie outside the membrane.
    beads
        Approximate number of beads.

    Returns
    -------
    cloud, radius
        The beads; and the radius in angstrom of the part inside the membrane.
    """
    outside = float(rng.uniform(0.33, 0.8)) * mass_kda
    inside = mass_kda - outside
    order = int(rng.choice([1, 2, 3, 4, 5, 6], p=[0.4, 0.2, 0.1, 0.15, 0.1, 0.05]))
    rotations = np.array([turn_about_z(2 * np.pi * step / order) for step in range(order)])
    radius = float(np.sqrt(inside * 1210.0 / (np.pi * 40.0)))
    core = protein_domain(
        rng,
        inside / order,
        residues_per_bead=residues_per_bead(mass_kda, beads),
        proportions=(26.0, radius / np.sqrt(order), radius / np.sqrt(order)),
        upright=True,
    )
    if order > 1:
        core = core.turned(np.eye(3), np.array([0, radius / np.sqrt(order) * (0.55 + 0.09 * order), 0]))
        core = core.copies(rotations)
    parts = [core]
    upper = float(rng.uniform(0.6, 1.0)) * outside
    for side, mass in ((1.0, upper), (-1.0, outside - upper)):
        if mass < 8:
            continue
        head = symmetric_assembly(rng, mass, f"C{order}", beads=beads)
        if order == 1:
            spread = np.quantile(head.points[:, 1:], 0.5, axis=0)
            head = head.turned(np.eye(3), np.array([0, -spread[0], -spread[1]]))
        if side < 0:
            head = head.turned(np.diag([-1.0, 1.0, -1.0]))
        level = np.quantile(head.points[:, 0] * side, 0.01)
        parts.append(head.turned(np.eye(3), np.array([side * (17.0 - level), 0, 0])))
    return joined(parts), radius


def bilayer_patch(
    rng: np.random.Generator, *, radius_angstrom: float, proteins: int, protein_kda: tuple[float, float]
) -> Cloud:
    """Make a flat round patch of bilayer, its normal along z, with proteins; with one protein it is a nanodisc.

    Parameters
    ----------
    rng
        Random generator.
    radius_angstrom
        Radius of the patch; its edge is uneven.
    proteins
        Number of proteins; those that find no place are left out. A single one stands near the middle.
    protein_kda
        Least and greatest mass of a protein, log-uniform.
    """
    placed = _placed_proteins(rng, proteins, protein_kda, radius_angstrom)
    spacing = max(5.0, radius_angstrom * np.sqrt(np.pi / MIDDLE_POINTS))
    flat = _disc(rng, radius_angstrom, spacing)
    wobble = 1 + 0.03 * np.sin(np.arctan2(flat[:, 0], flat[:, 1]) * int(rng.integers(2, 5)) + rng.uniform(0, 6.28))
    free = np.hypot(flat[:, 0], flat[:, 1]) < radius_angstrom * wobble
    for _, place, radius in placed:
        free &= np.hypot(flat[:, 0] - place[0], flat[:, 1] - place[1]) > radius + 2
    flat = flat[free]
    lipid = _bilayer(rng, np.concatenate([np.zeros((len(flat), 1)), flat], axis=1), _up(len(flat)), spacing**2)
    bodies = [
        cloud.turned(
            turn_about_z(rng.uniform(0, 6.28)) @ np.diag([side, 1.0, side]), np.array([0.0, place[0], place[1]])
        )
        for (cloud, place, _), side in zip(placed, rng.choice([-1.0, 1.0], len(placed)), strict=True)
    ]
    bend = float(rng.uniform(0, 0.08)) / radius_angstrom if radius_angstrom > 120 else 0.0
    whole = joined([lipid, *bodies])
    points = whole.points.copy()
    points[:, 0] += bend * (points[:, 1] ** 2 - points[:, 2] ** 2)
    return Cloud(points, whole.potential, whole.mass_kda)


def vesicle(
    rng: np.random.Generator, *, radius_angstrom: float, proteins: int, protein_kda: tuple[float, float]
) -> Cloud:
    """Make a closed, slightly uneven vesicle with proteins that cross its wall.

    Parameters
    ----------
    rng
        Random generator.
    radius_angstrom
        Radius of the middle of the bilayer.
    proteins
        Number of proteins; those that find no place are left out.
    protein_kda
        Least and greatest mass of a protein, log-uniform.
    """
    area = 4 * np.pi * radius_angstrom**2
    count = int(min(area / 5.0**2, MIDDLE_POINTS))
    normals = _fibonacci(rng, count)
    molds = [membrane_protein(rng, _log_uniform(rng, protein_kda), beads=500) for _ in range(min(proteins, 3))]
    free = np.ones(count, np.bool_)
    bodies: list[Cloud] = []
    taken: list[tuple[FloatArray, float]] = []
    for _ in range(proteins):
        cloud, radius = molds[int(rng.integers(len(molds)))]
        place = rng.standard_normal(3)
        place /= np.sqrt((place**2).sum())
        wide = float(np.hypot(cloud.points[:, 1], cloud.points[:, 2]).max())
        if any(
            np.sqrt(((place - other) ** 2).sum()) * radius_angstrom < wide + other_wide for other, other_wide in taken
        ):
            continue
        taken.append((place, wide))
        flip = np.diag([-1.0, 1.0, -1.0]) if rng.random() < 0.3 else np.eye(3)
        bodies.append(cloud.turned(rotation_onto(place, rng.uniform(0, 6.28)) @ flip, place * radius_angstrom))
        free &= np.sqrt(((normals - place) ** 2).sum(axis=1)) * radius_angstrom > radius + 2
    lipid = _bilayer(rng, normals[free] * radius_angstrom, normals[free], area / count)
    whole = joined([lipid, *bodies])
    return Cloud(_dented(rng, whole.points), whole.potential, whole.mass_kda)


def micelle(rng: np.random.Generator, *, protein_kda: float) -> Cloud:
    """Make a membrane protein in a belt of detergent: a dense rim around thin tails."""
    protein, radius = membrane_protein(rng, protein_kda)
    ring, half = radius + float(rng.uniform(18, 26)), float(rng.uniform(18, 23))
    spacing = 5.5
    count = int(4 * np.pi * ring * half / spacing**2 * 1.4)
    normals = _fibonacci(rng, count)
    points = normals * np.array([half, ring, ring])
    rim = points[np.hypot(points[:, 1], points[:, 2]) > radius]
    head = float(rng.uniform(*HEAD_VOLT_ANGSTROM)) * spacing**2
    head_weights = head * rng.uniform(0.6, 1.4, len(rim))
    axes = [np.arange(-extent, extent + spacing, spacing) for extent in (half, ring, ring)]
    inner = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    inner = inner + rng.uniform(-2, 2, inner.shape)
    inner = inner[np.sqrt(((inner / np.array([half - 4, ring - 4, ring - 4])) ** 2).sum(axis=1)) < 1]
    inner = inner[np.hypot(inner[:, 1], inner[:, 2]) > radius]
    tails = np.full(len(inner), float(rng.uniform(*TAILS_RELATIVE)) * PROTEIN_CONTRAST_VOLT * spacing**3)
    mass = 4 / 3 * np.pi * half * ring**2 / 1000 * 0.6
    return joined([protein, Cloud(np.concatenate([rim, inner]), np.concatenate([head_weights, tails]), mass)])


def _bilayer(rng: np.random.Generator, middle: FloatArray, normals: FloatArray, area: float) -> Cloud:
    """Make headgroups on both sides of each point of the middle plane, and tails between; `area` is that of one point."""
    half = float(rng.uniform(18, 21))
    head = float(rng.uniform(*HEAD_VOLT_ANGSTROM)) * area
    tails = float(rng.uniform(*TAILS_RELATIVE)) * PROTEIN_CONTRAST_VOLT * area * (half - 4)
    count = len(middle)
    side = rng.normal(0, 0.12 * np.sqrt(area), (2, count, 3))
    height = rng.normal(0, 1.5, (2, count, 1))
    inner, up = middle[::4], normals[::4]
    points = np.concatenate(
        [
            middle + side[0] + normals * (half + height[0]),
            middle + side[1] - normals * (half + height[1]),
            inner + up * half / 2.4,
            inner - up * half / 2.4,
        ]
    )
    weights = np.concatenate(
        [head * rng.uniform(0.85, 1.15, 2 * count), np.full(2 * len(inner), tails * count / max(len(inner), 1))]
    )
    return Cloud(points, weights, 2 * count * area / LIPID_AREA * LIPID_DALTON / 1e3)


def _placed_proteins(
    rng: np.random.Generator, wanted: int, protein_kda: tuple[float, float], radius: float
) -> list[tuple[Cloud, FloatArray, float]]:
    """Make proteins, their places ``(y, x)`` and radii in the patch; none overlaps another or the edge."""
    beads = max(600, 12_000 // max(wanted, 1))
    molds = [membrane_protein(rng, _log_uniform(rng, protein_kda), beads=beads) for _ in range(min(wanted, 3))]
    placed: list[tuple[Cloud, FloatArray, float]] = []
    widths: list[float] = []
    for _ in range(wanted):
        cloud, core = molds[int(rng.integers(len(molds)))]
        wide = float(np.hypot(cloud.points[:, 1], cloud.points[:, 2]).max())
        place = np.sqrt(rng.random()) * max(radius - core - 6, 0) * _on_circle(rng)
        if wanted == 1:
            place = place * 0.2
        apart = [np.hypot(*(place - other)) > wide + width for (_, other, _), width in zip(placed, widths, strict=True)]
        if all(apart):
            placed.append((cloud, place, core))
            widths.append(wide)
    return placed


def _disc(rng: np.random.Generator, radius: float, spacing: float) -> FloatArray:
    axis = np.arange(-1.1 * radius, 1.1 * radius + spacing, spacing)
    flat = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    return flat + rng.uniform(-0.3, 0.3, flat.shape) * spacing


def _fibonacci(rng: np.random.Generator, count: int) -> FloatArray:
    """Give evenly spread unit vectors, with a little jitter so that no spiral shows."""
    step = np.arange(count) + 0.5
    z = 1 - 2 * step / count
    around = step * np.pi * (3 - np.sqrt(5))
    flat = np.sqrt(1 - z**2)
    points = np.stack([z, flat * np.cos(around), flat * np.sin(around)], axis=1)
    points = points + rng.normal(0, 0.2 / np.sqrt(count), points.shape)
    return points / np.sqrt((points**2).sum(axis=1, keepdims=True))


def _dented(rng: np.random.Generator, points: FloatArray) -> FloatArray:
    """Deform a closed surface: a little longer, flatter and uneven."""
    stretch = rng.normal(1, 0.06, 3)
    distance = np.sqrt((points**2).sum(axis=1, keepdims=True))
    unit = points / np.maximum(distance, 1e-9)
    bumps = np.zeros((len(points), 1))
    for order in (2, 3, 4):
        axis = rng.standard_normal(3)
        axis /= np.sqrt((axis**2).sum())
        bumps[:, 0] += rng.normal(0, 0.035) * np.cos(order * np.arccos(np.clip(unit @ axis, -1, 1)))
    return points * (1 + bumps) * stretch


def _up(count: int) -> FloatArray:
    return np.broadcast_to(np.array([1.0, 0.0, 0.0]), (count, 3))


def _on_circle(rng: np.random.Generator) -> FloatArray:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.sin(angle), np.cos(angle)])


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]))))
