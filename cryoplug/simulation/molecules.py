"""Random molecules for training: assemblies, shells, rods, filaments, membranes and nucleic acids that do not exist.

Each is a cloud of blobs, like every other particle. Nothing is copied from a real structure. Denoisers are judged on three
families of molecules, which therefore must not be made here. Ribosomes: nucleic acid is at most a third of a molecule, and
only in those below 700 kDa. Chaperonins: there are no seven-fold rings. Ferritins: there is no octahedral cage of 300 to
700 kDa, and shells begin at a diameter of 150 angstrom.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cryoplug.errors import UsageError
from cryoplug.simulation import assemblies, membranes
from cryoplug.simulation.domains import Cloud, turn_about_z
from cryoplug.simulation.specimen import PROTEIN_CONTRAST_VOLT, FloatArray, ParticleModel, random_rotation

MAX_BLOBS = 40_000
"""Most blobs of one molecule."""

WIDTHS_ANGSTROM = (1.7, 2.4, 3.4, 5.0)
"""Standard deviations of blobs: only a few, so that particles of one width can be drawn together."""

TEXTURED, SMOOTH = 0.34, 0.5
"""Width of a blob as a part of the side of its volume. With the first, power spectra of projections fall like those of
atomic structures, from 200 to 5 angstrom. With the second, single blobs of a bilayer do not show."""

MEMBRANES = ("nanodisc", "micelle", "bilayer", "vesicle")
"""Kinds with lipid or detergent, which is fluid and therefore smooth."""

Range = tuple[float, float]


def _kinds() -> dict[str, float]:
    return {
        "assembly": 0.56,
        "shell": 0.07,
        "rod": 0.06,
        "filament": 0.08,
        "nucleic": 0.05,
        "nanodisc": 0.05,
        "micelle": 0.06,
        "bilayer": 0.03,
        "vesicle": 0.04,
    }


def _symmetries() -> dict[str, float]:
    return {"C1": 0.42, "C": 0.22, "D": 0.21, "T": 0.05, "O": 0.05, "I": 0.05}


@dataclass(frozen=True)
class MoleculeDistribution:
    """Distribution of random molecules; ranges are log-uniform unless the field says otherwise."""

    kinds: dict[str, float] = field(default_factory=_kinds)
    """Relative chance of each kind."""
    symmetries: dict[str, float] = field(default_factory=_symmetries)
    """Relative chance of each symmetry of an assembly; C and D have orders 2 to 12 (high ones are rarer), never 7."""
    mass_kda: Range = (20.0, 4000.0)
    """Mass of an assembly."""
    contrast: Range = (0.7, 1.3)
    """Factor on the potential of the whole molecule, uniform: how its density differs from that of textbook protein."""
    nucleic_chance: float = 0.15
    """Chance that an assembly of 60 to 700 kDa carries double helices, 5 to 33 % of its mass."""
    shell_radius_angstrom: Range = (75.0, 300.0)
    """Radius of the middle of a shell's wall; half of the shells are filled."""
    shell_wall_angstrom: Range = (18.0, 45.0)
    """Thickness of the wall."""
    rod_length_angstrom: Range = (150.0, 900.0)
    """Length of a rod."""
    filament_length_angstrom: Range = (900.0, 2000.0)
    """Length of a filament; it takes several to cross a field."""
    subunit_kda: Range = (12.0, 110.0)
    """Mass of a subunit of a rod or filament; tubes of many strands have small subunits."""
    nucleic_kda: Range = (25.0, 400.0)
    """Mass of a bundle of double helices, 1.5 to 2 times as dense as protein."""
    disc_radius_angstrom: Range = (42.0, 75.0)
    """Radius of a nanodisc."""
    patch_radius_angstrom: Range = (150.0, 400.0)
    """Radius of a bilayer patch."""
    vesicle_radius_angstrom: Range = (100.0, 350.0)
    """Radius of a vesicle."""
    membrane_protein_kda: Range = (30.0, 600.0)
    """Mass of a protein that crosses a membrane."""

    def __post_init__(self) -> None:
        """Refuse a distribution from which no molecule can be drawn."""
        known = _kinds()
        wrong = [f"kind {name!r} (known: {', '.join(known)})" for name in self.kinds if name not in known]
        wrong += [
            f"symmetry {name!r} (known: C1, C, D, T, O, I)" for name in self.symmetries if name not in _symmetries()
        ]
        if min(self.kinds.values(), default=0) < 0 or sum(self.kinds.values()) <= 0:
            wrong.append(f"chances of the kinds: {self.kinds}; give 0 or more, one above 0")
        if wrong:
            raise UsageError("molecules: " + "; ".join(wrong))


def random_molecule(
    rng: np.random.Generator, distribution: MoleculeDistribution | None = None, *, kind: str | None = None
) -> ParticleModel:
    """Draw one molecule.

    Parameters
    ----------
    rng
        Random generator; the same state gives the same molecule.
    distribution
        Distribution of molecules; None for the default ranges.
    kind
        Kind of the molecule; None draws it by its chance.

    Returns
    -------
    ParticleModel
        Centred on its centre of mass, with at most `MAX_BLOBS` blobs of one of `WIDTHS_ANGSTROM`. Rods and filaments lie
        along z, flat membranes across z.
    """
    ranges = distribution or MoleculeDistribution()
    chosen = kind or _choice(rng, ranges.kinds)
    maker = {
        "assembly": _assembly,
        "shell": _shell,
        "rod": _rod,
        "filament": _filament,
        "nucleic": _nucleic,
        "nanodisc": _nanodisc,
        "micelle": _micelle,
        "bilayer": _bilayer,
        "vesicle": _vesicle,
    }.get(chosen)
    if maker is None:
        raise UsageError(f"molecules: kind {chosen!r}; known: {', '.join(_kinds())}")
    cloud, detail = maker(rng, ranges)
    return _model(cloud, chosen, detail, contrast=float(rng.uniform(*ranges.contrast)), rng=rng)


def molecule_library(
    seed: int, count: int, distribution: MoleculeDistribution | None = None
) -> tuple[ParticleModel, ...]:
    """Return `count` random molecules; molecule n depends on the seed and n alone."""
    return tuple(random_molecule(np.random.default_rng([seed, 3, n]), distribution) for n in range(count))


def rotation_in_ice(model: ParticleModel, rng: np.random.Generator, *, thickness_angstrom: float) -> FloatArray:
    """Draw an orientation in which a molecule fits between the two surfaces of the ice.

    Parameters
    ----------
    model
        The molecule.
    rng
        Random generator.
    thickness_angstrom
        Thickness of the ice.

    Returns
    -------
    ndarray
        ``(3, 3)``, for (z, y, x) with the beam along z. Uniform over all orientations that fit. If none of 48 draws fits, the
        molecule's shortest extent lies along the beam, and its in-plane angle is random.
    """
    points = model.points_angstrom[:: max(1, len(model.points_angstrom) // 400)].astype(np.float64)
    if 2 * model.radius_angstrom <= thickness_angstrom:
        return random_rotation(rng)
    for _ in range(48):
        rotation = random_rotation(rng)
        if np.ptp(points @ rotation[0]) <= thickness_angstrom:
            return rotation
    _, axes = np.linalg.eigh(np.cov(points.T))
    flat = axes.T * np.sign(np.linalg.det(axes))
    return turn_about_z(float(rng.uniform(0, 2 * np.pi))) @ flat


def _assembly(rng: np.random.Generator, ranges: MoleculeDistribution) -> tuple[Cloud, str]:
    mass = _log_uniform(rng, ranges.mass_kda)
    family = _choice(rng, ranges.symmetries)
    symmetry = family
    if family in ("C", "D"):
        orders = np.array([2, 3, 4, 5, 6, 8, 9, 10, 11, 12])
        chances = 1 / orders**1.3
        symmetry = f"{family}{int(rng.choice(orders, p=chances / chances.sum()))}"
    copies = {"T": 12, "O": 24, "I": 60}.get(family, 0) or int(symmetry[1:]) * (2 if family == "D" else 1)
    # A subunit is a domain at least; and cages of the size of ferritin are kept for judging.
    mass = max(mass, 9.0 * copies)
    if family == "O" and 300 < mass < 700:
        mass = 700.0 * float(rng.uniform(1.05, 2.5))
    nucleic = 0.0
    if 60 < mass < 700 and copies <= 8 and rng.random() < ranges.nucleic_chance:
        nucleic = float(rng.uniform(0.05, 0.33))
    return assemblies.symmetric_assembly(rng, mass, symmetry, nucleic_share=nucleic), symmetry


def _shell(rng: np.random.Generator, ranges: MoleculeDistribution) -> tuple[Cloud, str]:
    content = float(rng.uniform(0.25, 1.0)) if rng.random() < 0.5 else 0.0
    radius = _log_uniform(rng, ranges.shell_radius_angstrom)
    wall = _log_uniform(rng, ranges.shell_wall_angstrom)
    cloud = assemblies.shell(rng, radius_angstrom=radius, wall_angstrom=wall, content=content)
    return cloud, "filled" if content else "empty"


def _rod(rng: np.random.Generator, ranges: MoleculeDistribution) -> tuple[Cloud, str]:
    return _helical(rng, _log_uniform(rng, ranges.rod_length_angstrom), ranges)


def _filament(rng: np.random.Generator, ranges: MoleculeDistribution) -> tuple[Cloud, str]:
    return _helical(rng, _log_uniform(rng, ranges.filament_length_angstrom), ranges)


def _helical(rng: np.random.Generator, length: float, ranges: MoleculeDistribution) -> tuple[Cloud, str]:
    starts = int(rng.choice([1, 2, 3, 4, 6, 9, 13, 15], p=[0.42, 0.2, 0.1, 0.08, 0.08, 0.04, 0.05, 0.03]))
    low, high = ranges.subunit_kda
    subunit = _log_uniform(rng, (low, high if starts < 5 else min(high, 55.0)))
    size = 2 * (subunit * 1210 * 3 / (4 * np.pi)) ** (1 / 3)
    rise = float(size * (rng.uniform(0.35, 1.15) if starts < 3 else rng.uniform(0.8, 1.2)))
    cloud = assemblies.helical_assembly(
        rng, length_angstrom=length, subunit_kda=subunit, starts=starts, rise_angstrom=rise
    )
    return cloud, f"{starts}-start"


def _nucleic(rng: np.random.Generator, ranges: MoleculeDistribution) -> tuple[Cloud, str]:
    mass = _log_uniform(rng, ranges.nucleic_kda)
    return assemblies.nucleic_bundle(rng, mass, density=float(rng.uniform(1.5, 2.0))), "duplexes"


def _nanodisc(rng: np.random.Generator, ranges: MoleculeDistribution) -> tuple[Cloud, str]:
    radius = _log_uniform(rng, ranges.disc_radius_angstrom)
    low, high = ranges.membrane_protein_kda
    proteins = int(rng.random() < 0.9)
    heaviest = min(high, 6.0 * radius)
    return membranes.bilayer_patch(
        rng, radius_angstrom=radius, proteins=proteins, protein_kda=(low, max(low, heaviest))
    ), ("protein" if proteins else "empty")


def _micelle(rng: np.random.Generator, ranges: MoleculeDistribution) -> tuple[Cloud, str]:
    return membranes.micelle(rng, protein_kda=_log_uniform(rng, ranges.membrane_protein_kda)), "protein"


def _bilayer(rng: np.random.Generator, ranges: MoleculeDistribution) -> tuple[Cloud, str]:
    radius = _log_uniform(rng, ranges.patch_radius_angstrom)
    cloud = membranes.bilayer_patch(
        rng, radius_angstrom=radius, proteins=int(rng.integers(0, 15)), protein_kda=ranges.membrane_protein_kda
    )
    return cloud, "patch"


def _vesicle(rng: np.random.Generator, ranges: MoleculeDistribution) -> tuple[Cloud, str]:
    radius = _log_uniform(rng, ranges.vesicle_radius_angstrom)
    cloud = membranes.vesicle(
        rng, radius_angstrom=radius, proteins=int(rng.integers(0, 25)), protein_kda=ranges.membrane_protein_kda
    )
    return cloud, "closed"


def _model(cloud: Cloud, kind: str, detail: str, *, contrast: float, rng: np.random.Generator) -> ParticleModel:
    if len(cloud.points) > MAX_BLOBS:
        kept = np.sort(rng.permutation(len(cloud.points))[:MAX_BLOBS])
        cloud = Cloud(
            cloud.points[kept],
            cloud.potential[kept] * (cloud.potential.sum() / cloud.potential[kept].sum()),
            cloud.mass_kda,
        )
    centred = cloud.points - np.average(cloud.points, axis=0, weights=np.abs(cloud.potential))
    typical = float(np.median(np.abs(cloud.potential[cloud.potential != 0]))) / PROTEIN_CONTRAST_VOLT
    wanted = (SMOOTH if kind in MEMBRANES else TEXTURED) * typical ** (1 / 3)
    width = min(WIDTHS_ANGSTROM, key=lambda known: abs(np.log(known / wanted)))
    return ParticleModel(
        f"{kind} {detail} {cloud.mass_kda:.0f} kDa",
        centred.astype(np.float32),
        (cloud.potential * contrast).astype(np.float32),
        blob_width_angstrom=width,
        kind=kind,
        mass_kda=cloud.mass_kda,
    )


def _choice(rng: np.random.Generator, chances: dict[str, float]) -> str:
    weights = np.array(list(chances.values()), np.float64)
    return list(chances)[int(rng.choice(len(weights), p=weights / weights.sum()))]


def _log_uniform(rng: np.random.Generator, limits: Range) -> float:
    return float(np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]))))
