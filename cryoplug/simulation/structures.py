"""A particle from the atoms of a known structure, PDB or mmCIF, through gemmi.

``pip install 'cryoplug[simulate]'`` brings gemmi. An atom's share of the potential is its scattering factor for electrons
minus that of the ice that it displaces. Nearby atoms become one Gaussian blob, as few atoms in each as the limit of blobs
allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cryoplug.errors import FormatError, MissingInputError, UsageError
from cryoplug.simulation.coarse import cells_of, gathered
from cryoplug.simulation.specimen import FloatArray, ParticleModel

MAX_ATOMS = 20_000_000
"""Most atoms of an assembly; a capsid of 36 MDa has 5 million."""
MAX_EXTENT_ANGSTROM = 10_000.0
"""Largest distance between atoms; larger ones mean that the file is damaged."""
MAX_BLOBS = 40_000
"""Most blobs of a structure, unless another limit is given."""
ATOM_WIDTH_ANGSTROM = 1.0
"""Standard deviation of an atom, from its size and its motion."""
VOLT_ANGSTROM3_PER_SCATTERING = 47.878
"""Integral of the potential for a scattering factor of 1 angstrom: h^2 / (2 pi m e)."""
BONDED = 0.866
"""Part of the free atoms' potential that remains when they are bonded; with it, protein has 2.5 V more than ice."""
ICE_VOLT = 4.53
"""Mean inner potential of ice of 0.93 g/cm^3."""
ANGSTROM3_PER_DALTON = {"nucleic": 0.91, "other": 1.21}
"""Volume of nucleic acid, and of everything else, such as protein."""
HYDROGENS = {"nucleic": {"C": 1.0, "N": 0.5}, "other": {"C": 1.4, "N": 0.65}}
"""Mean number of hydrogens on an atom. Hydrogens in a file are left out, because many files have none, or only some."""

_GEMMI_ERRORS = (RuntimeError, ValueError, IndexError, MemoryError)


def _names(words: str) -> npt.NDArray[np.int64]:
    """Return residue names as in gemmi's arrays: eight letters, read as one number."""
    return np.array([word.encode().ljust(8, b"\0") for word in words.split()], "S8").view(np.int64)


_NUCLEOTIDES = _names("A C G U I N DA DC DG DT DU DI DN PSU 5MC 5MU 7MG OMC OMG OMU 1MA 2MG M2G H2U YYG")
_LEFT_OUT = _names("HOH DOD WAT DUM")


@dataclass(frozen=True)
class Structure:
    """The atoms of a molecule; hydrogens are added to their neighbours."""

    positions: FloatArray
    """``(n, 3)``, angstrom, in the order z, y, x."""
    potential: FloatArray
    """``(n,)``, integral of the potential of each atom, minus that of the displaced ice, volt * angstrom^3."""
    mass_dalton: FloatArray
    """``(n,)``, mass of each atom."""
    name: str
    """Name of the particles."""


def read_structure(path: Path) -> Structure:
    """Read the biological assembly of a structure; if the file names none, the atoms as they are.

    Parameters
    ----------
    path
        PDB or mmCIF, also ``.gz``. The first assembly of the first model; water is left out.

    Raises
    ------
    UsageError
        gemmi is not installed.
    MissingInputError, FormatError
        The file is missing, it is not a structure, or it has no atoms.
    """
    gemmi = _gemmi(path)
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file; give a structure, PDB or mmCIF")
    try:
        structure = gemmi.read_structure(str(path))
    except (OSError, *_GEMMI_ERRORS) as error:
        reason = str(error).replace(f" of {path}", "").rstrip(".")
        raise FormatError(
            f"{path}: not a structure that can be read ({reason}); give PDB or mmCIF here, and density maps by --map"
        ) from error
    structure.remove_hydrogens()
    while len(structure) > 1:
        del structure[-1]
    if len(structure.assemblies) and len(structure):
        assembly = structure.assemblies[0]
        atoms = structure[0].count_atom_sites() * max((len(part.operators) for part in assembly.generators), default=1)
        if atoms > MAX_ATOMS:
            raise FormatError(f"{path}: assembly {assembly.name} has {atoms} atoms; allowed: up to {MAX_ATOMS}")
        try:
            structure.transform_to_assembly(assembly.name, gemmi.HowToNameCopiedChain.Dup)
        except _GEMMI_ERRORS as error:
            raise FormatError(
                f"{path}: assembly {assembly.name} cannot be made ({error}); give a file of the whole molecule"
            ) from error
    return _atoms(gemmi, structure, path)


def particle_from_structure(structure: Structure, *, max_blobs: int = MAX_BLOBS) -> ParticleModel:
    """Make a particle from a structure, centred on its centre of mass.

    Parameters
    ----------
    structure
        The atoms.
    max_blobs
        Most blobs, 1 or more. Atoms within a cell become one blob; cells are as small as this limit allows.
    """
    positions = structure.positions - np.average(structure.positions, axis=0, weights=structure.mass_dalton)
    # Protein has an atom for each 18 cubic angstrom.
    side = 0.8 * (18.0 * len(positions) / max_blobs) ** (1 / 3)
    cells = cells_of(positions, at_most=max_blobs, side_angstrom=side)
    points, _, variance = gathered(positions, structure.mass_dalton, cells)
    return ParticleModel(
        structure.name,
        points.astype(np.float32),
        np.bincount(cells, structure.potential).astype(np.float32),
        blob_width_angstrom=float(np.sqrt(ATOM_WIDTH_ANGSTROM**2 + variance)),
        kind="model",
        mass_kda=float(structure.mass_dalton.sum() / 1e3),
    )


def _atoms(gemmi: Any, structure: Any, path: Path) -> Structure:
    """Give the atoms as arrays; hydrogens are added to the atoms that carry them."""
    flat = gemmi.FlatStructure(structure)
    residues = np.ascontiguousarray(np.asarray(flat.residue_names, np.int8)).view(np.int64).ravel()
    number = np.asarray(flat.elements, np.int64)
    positions = np.asarray(flat.pos, np.float64)
    kept = ~np.isin(residues, _LEFT_OUT) & (number > 0) & np.isfinite(positions).all(axis=1)
    kept &= np.asarray(flat.occ) > 0
    if not kept.any():
        raise FormatError(f"{path}: no atoms; give a structure, PDB or mmCIF")
    number, residues, positions = number[kept], residues[kept], positions[kept]
    extent = float(np.ptp(positions, axis=0).max())
    if extent > MAX_EXTENT_ANGSTROM:
        raise FormatError(
            f"{path}: atoms lie up to {extent:.3g} angstrom apart; allowed: up to {MAX_EXTENT_ANGSTROM:g}; the file is damaged"
        )
    occupancy = np.asarray(flat.occ, np.float64)[kept]
    elements = {int(known): gemmi.Element(int(known)) for known in np.unique(number)}
    light = gemmi.Element("H")
    nucleic = np.isin(residues, _NUCLEOTIDES)
    hydrogens = np.zeros(len(number))
    for family, chosen in (("nucleic", nucleic), ("other", ~nucleic)):
        for symbol, count in HYDROGENS[family].items():
            hydrogens[chosen & (number == gemmi.Element(symbol).atomic_number)] = count
    weight, scattering = np.zeros(len(number)), np.zeros(len(number))
    for known, element in elements.items():
        weight[number == known] = element.weight
        scattering[number == known] = element.c4322.calculate_sf(0.0)
    mass = occupancy * (weight + hydrogens * light.weight)
    scattering = occupancy * (scattering + hydrogens * light.c4322.calculate_sf(0.0))
    volume = mass * np.where(nucleic, ANGSTROM3_PER_DALTON["nucleic"], ANGSTROM3_PER_DALTON["other"])
    potential = BONDED * VOLT_ANGSTROM3_PER_SCATTERING * scattering - ICE_VOLT * volume
    return Structure(positions[:, ::-1].copy(), potential, mass, path.name.split(".")[0])


def _gemmi(path: Path) -> Any:
    try:
        import gemmi as library
    except ImportError as error:
        raise UsageError(
            f"{path}: a structure is read with gemmi, which is not installed; install it: pip install 'cryoplug[simulate]'"
        ) from error
    return library
