from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cryoplug.errors import FormatError, MissingInputError, UsageError
from cryoplug.simulation import domains, structures
from cryoplug.simulation.density_map import DensityMap, particle_from_map
from cryoplug.simulation.field import Field, Placed, expose
from cryoplug.simulation.ice import Ice
from cryoplug.simulation.specimen import PROTEIN_CONTRAST_VOLT, ParticleModel

gemmi = pytest.importorskip("gemmi")

RESIDUE = (("N", "N", (0, 0, 1.4)), ("CA", "C", (0, 0, 0)), ("C", "C", (0, 1.2, -0.9)), ("O", "O", (0.4, 2.3, -0.7)))
SIDE = (("CB", "C", (1.5, 0, 0.2)), ("CG", "C", (2.6, 0.7, 0)))
TWO_CHAINS = (
    "REMARK 350 BIOMOLECULE: 1\n"
    "REMARK 350 APPLY THE FOLLOWING TO CHAINS: A\n"
    "REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000\n"
    "REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000\n"
    "REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000\n"
    "REMARK 350   BIOMT1   2 -1.000000  0.000000  0.000000       80.00000\n"
    "REMARK 350   BIOMT2   2  0.000000 -1.000000  0.000000        0.00000\n"
    "REMARK 350   BIOMT3   2  0.000000  0.000000  1.000000        0.00000\n"
)


def write_protein(path: Path, *, head: str = "", kda: float = 40.0, extra: str = "") -> Path:
    """Write residues where the beads of a domain lie."""
    beads = domains.protein_domain(np.random.default_rng(0), kda).points
    turns = np.random.default_rng(1)
    lines, serial = [head], 0
    for residue, bead in enumerate(beads, 1):
        turn = domains.rotation_onto(domains.random_unit(turns, 1)[0], turns.uniform(0, 6))
        for name, element, place in RESIDUE + SIDE:
            serial += 1
            z, y, x = bead + turn @ np.array(place)
            lines.append(
                f"ATOM  {serial % 100000:5d}  {name:<3s} LEU A{residue % 10000:4d}    "
                f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00 30.00          {element:>2s}\n"
            )
    path.write_text("".join([*lines, extra, "END\n"]))
    return path


def seen(model: ParticleModel, size: int = 96, pixel: float = 2.5) -> torch.Tensor:
    """Noise-free particle in flat ice, 1.5 micrometres under focus."""
    turn = domains.rotation_onto(np.array([0.3, 0.8, -0.5]), 0.6)
    placed = Placed(model, np.full((1, 2), size / 2), turn[None], np.zeros(1))
    quiet = Ice(slope=0, texture=0, grain_rad=0)
    field = Field((size, size), pixel, ice=quiet)
    return expose(field, [placed], torch.Generator().manual_seed(0)).particles


def test_protein_has_the_contrast_of_its_mass(tmp_path):
    model = structures.particle_from_structure(structures.read_structure(write_protein(tmp_path / "protein.pdb")))
    textbook = PROTEIN_CONTRAST_VOLT * domains.PROTEIN_ANGSTROM3_PER_DALTON * 1e3 * model.mass_kda
    assert float(model.blob_volt_angstrom3.sum()) == pytest.approx(textbook, rel=0.08)
    assert model.kind == "model" and model.name == "protein"
    assert np.abs(np.average(model.points_angstrom, axis=0, weights=model.blob_volt_angstrom3)).max() < 1


def test_nucleic_acid_is_denser_by_volume(tmp_path):
    atoms = "".join(
        f"ATOM  {n + 1:5d}  {name:<3s}  DG A{n + 1:4d}    {3.0 * n:8.3f}{0:8.3f}{0:8.3f}  1.00 30.00          {name[0]:>2s}\n"
        for n, name in enumerate(["C"] * 10 + ["N"] * 5 + ["O"] * 6 + ["P"])
    )
    (tmp_path / "g.pdb").write_text(atoms + "END\n")
    model = structures.particle_from_structure(structures.read_structure(tmp_path / "g.pdb"))
    volume = domains.NUCLEIC_ANGSTROM3_PER_DALTON * 1e3 * model.mass_kda
    assert 1.3 < float(model.blob_volt_angstrom3.sum()) / (PROTEIN_CONTRAST_VOLT * volume) < 2.0


def test_a_structure_and_the_map_computed_from_it_look_alike(tmp_path):
    path = write_protein(tmp_path / "protein.pdb")
    molecule = gemmi.read_structure(str(path))
    box = gemmi.UnitCell(100, 100, 100, 90, 90, 90)
    molecule.cell, molecule.spacegroup_hm = box, "P 1"
    for site in molecule[0].all():
        site.atom.pos += gemmi.Position(50, 50, 50)
        site.atom.b_iso = 79.0  # 8 pi^2 times the variance that a blob has.
    calculator = gemmi.DensityCalculatorE()
    calculator.d_min, calculator.rate = 4.0, 2.0
    calculator.set_grid_cell_and_spacegroup(molecule)
    calculator.put_model_density_on_grid(molecule[0])
    voxels = np.array(calculator.grid.array, np.float32).transpose(2, 1, 0)
    size = 100 / voxels.shape[0]
    from_map = particle_from_map(DensityMap(np.ascontiguousarray(voxels), size, threshold=float(0.05 * voxels.max())))
    from_model = structures.particle_from_structure(structures.read_structure(path))
    one, other = seen(from_map), seen(from_model)
    assert float(torch.corrcoef(torch.stack((one.flatten(), other.flatten())))[0, 1]) > 0.97
    assert float(one.std() / other.std()) == pytest.approx(1, rel=0.35)


def test_fewer_blobs_look_the_same_at_low_resolution(tmp_path):
    structure = structures.read_structure(write_protein(tmp_path / "protein.pdb"))
    whole = structures.particle_from_structure(structure)
    coarse = structures.particle_from_structure(structure, max_blobs=len(whole.points_angstrom) // 8)
    assert len(coarse.points_angstrom) <= len(whole.points_angstrom) // 8
    assert coarse.blob_width_angstrom > whole.blob_width_angstrom
    assert float(coarse.blob_volt_angstrom3.sum()) == pytest.approx(float(whole.blob_volt_angstrom3.sum()), rel=1e-4)
    one, other = seen(whole, 64, 5.0), seen(coarse, 64, 5.0)
    assert float(torch.corrcoef(torch.stack((one.flatten(), other.flatten())))[0, 1]) > 0.98


def test_the_biological_assembly_is_made(tmp_path):
    alone = structures.read_structure(write_protein(tmp_path / "one.pdb"))
    both = structures.read_structure(write_protein(tmp_path / "two.pdb", head=TWO_CHAINS))
    assert len(both.positions) == 2 * len(alone.positions)
    assert both.mass_dalton.sum() == pytest.approx(2 * alone.mass_dalton.sum())
    # A two-fold along the file's z axis, the first of ours, through x = 40, y = 0.
    half = len(alone.positions)
    turned = both.positions[:half] * np.array([1, -1, -1]) + np.array([0, 0, 80])
    np.testing.assert_allclose(both.positions[half:], turned, atol=0.01)


def test_water_dummies_hydrogens_and_later_models_are_left_out(tmp_path):
    clean = structures.read_structure(write_protein(tmp_path / "clean.pdb"))
    extra = "".join(
        f"HETATM99990  {name:<3s} {residue} B   1    {10:8.3f}{0:8.3f}{0:8.3f}  1.00 30.00          {name[0]:>2s}\n"
        for name, residue in (("O", "HOH"), ("O", "DUM"), ("H", "LEU"))
    )
    more = structures.read_structure(write_protein(tmp_path / "more.pdb", extra=extra))
    assert len(more.positions) == len(clean.positions)
    text = "".join(write_protein(tmp_path / "x.pdb").read_text().splitlines(keepends=True)[:-1])
    (tmp_path / "models.pdb").write_text(f"MODEL        1\n{text}ENDMDL\nMODEL        2\n{text}ENDMDL\nEND\n")
    assert len(structures.read_structure(tmp_path / "models.pdb").positions) == len(clean.positions)


def test_pdb_and_mmcif_of_one_molecule_agree(tmp_path):
    path = write_protein(tmp_path / "protein.pdb", head=TWO_CHAINS)
    molecule = gemmi.read_structure(str(path))
    molecule.setup_entities()
    molecule.make_mmcif_document().write_file(str(tmp_path / "protein.cif"))
    one, other = (structures.read_structure(tmp_path / name) for name in ("protein.pdb", "protein.cif"))
    np.testing.assert_allclose(one.positions, other.positions, atol=2e-3)
    np.testing.assert_allclose(one.potential, other.potential)


def test_what_is_no_structure_is_refused_with_its_name(tmp_path):
    with pytest.raises(MissingInputError, match=r"none\.cif"):
        structures.read_structure(tmp_path / "none.cif")
    for name, text in (("empty.pdb", "END\n"), ("text.cif", "hello"), ("odd.xyz", "1 2 3"), ("bad.pdb.gz", "x")):
        (tmp_path / name).write_text(text)
        with pytest.raises(FormatError, match="PDB or mmCIF"):
            structures.read_structure(tmp_path / name)


def test_damaged_structures_end_in_an_error_of_ours(tmp_path):
    """Cut off, bytes changed, pieces taken out or overwritten: a particle or an error that names the file."""
    good = write_protein(tmp_path / "good.pdb", head=TWO_CHAINS, kda=6.0).read_bytes()
    ends = {"made": 0, "refused": 0}
    for number in range(80):
        rng = np.random.default_rng(number)
        data = bytearray(good)
        if number % 4 == 0:
            data = data[: rng.integers(len(data))]
        elif number % 4 == 1:
            for place in rng.integers(len(data), size=rng.integers(1, 40)):
                data[place] = rng.integers(256)
        elif number % 4 == 2:
            start = rng.integers(len(data))
            del data[start : start + rng.integers(1000)]
        else:
            for place in rng.integers(len(data), size=10):
                data[place : place + 12] = b"9" * rng.integers(30)
        path = tmp_path / "bad.pdb"
        path.write_bytes(data)
        try:
            model = structures.particle_from_structure(structures.read_structure(path))
        except FormatError as error:
            assert "bad.pdb" in str(error)
            ends["refused"] += 1
        else:
            assert np.isfinite(model.points_angstrom).all() and np.isfinite(model.blob_volt_angstrom3).all()
            assert model.radius_angstrom < 2e4
            ends["made"] += 1
    assert min(ends.values()) > 5


def test_an_assembly_that_no_memory_holds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(structures, "MAX_ATOMS", 1000)
    with pytest.raises(FormatError, match="allowed: up to 1000"):
        structures.read_structure(write_protein(tmp_path / "two.pdb", head=TWO_CHAINS))


def test_without_gemmi_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gemmi", None)
    with pytest.raises(UsageError, match=r"cryoplug\[simulate\]"):
        structures.read_structure(tmp_path / "any.pdb")
