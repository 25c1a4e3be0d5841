from __future__ import annotations

import dataclasses
import itertools
import time

import numpy as np
import pytest

from cryoplug.errors import UsageError
from cryoplug.simulation import assemblies, domains, membranes, molecules, symmetry
from cryoplug.simulation.field import Placed, projected_potential
from cryoplug.simulation.planes import FrequencyPlane
from cryoplug.simulation.specimen import PROTEIN_CONTRAST_VOLT, random_rotation

KINDS = tuple(molecules.MoleculeDistribution().kinds)


@pytest.fixture(scope="module")
def library():
    """Four molecules of each kind."""
    return {
        kind: [molecules.random_molecule(np.random.default_rng([5, n]), kind=kind) for n in range(4)] for kind in KINDS
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_centred_bounded_and_says_what_it_is(library, kind):
    for model in library[kind]:
        assert model.kind == kind
        assert model.mass_kda > 5
        assert model.name.startswith(kind) and f"{model.mass_kda:.0f} kDa" in model.name
        assert 20 < len(model.points_angstrom) <= molecules.MAX_BLOBS
        assert model.blob_width_angstrom in molecules.WIDTHS_ANGSTROM
        assert np.isfinite(model.points_angstrom).all() and np.isfinite(model.blob_volt_angstrom3).all()
        centre = np.average(model.points_angstrom, axis=0, weights=np.abs(model.blob_volt_angstrom3))
        assert np.abs(centre).max() < 0.01


def test_same_state_gives_the_same_molecule_and_another_seed_another():
    first, again = (molecules.molecule_library(3, 6) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert one.name == other.name
        assert np.array_equal(one.points_angstrom, other.points_angstrom)
        assert np.array_equal(one.blob_volt_angstrom3, other.blob_volt_angstrom3)
    assert [model.name for model in molecules.molecule_library(4, 6)] != [model.name for model in first]


def test_molecule_n_does_not_depend_on_how_many_are_made():
    assert molecules.molecule_library(3, 2)[1].name == molecules.molecule_library(3, 4)[1].name


def test_protein_has_the_potential_of_its_mass_within_the_spread(library):
    textbook = PROTEIN_CONTRAST_VOLT * domains.PROTEIN_ANGSTROM3_PER_DALTON * 1e3
    for kind in ("rod", "filament"):
        for model in library[kind]:
            relative = model.blob_volt_angstrom3.sum() / (textbook * model.mass_kda)
            assert 0.699 < relative < 1.301
    only = dataclasses.replace(molecules.MoleculeDistribution(), nucleic_chance=0.0)
    relative = [
        model.blob_volt_angstrom3.sum() / (textbook * model.mass_kda)
        for model in (molecules.random_molecule(np.random.default_rng(n), only, kind="assembly") for n in range(20))
    ]
    assert 0.699 < min(relative) < 0.9 < 1.1 < max(relative) < 1.301


def test_nucleic_acid_is_denser_than_protein(library):
    for model in library["nucleic"]:
        volume = domains.NUCLEIC_ANGSTROM3_PER_DALTON * 1e3 * model.mass_kda
        assert 0.7 * 1.5 < model.blob_volt_angstrom3.sum() / (PROTEIN_CONTRAST_VOLT * volume) < 1.3 * 2.0


def test_masses_of_assemblies_are_spread_evenly_over_decades():
    drawn = [molecules.random_molecule(np.random.default_rng([9, n]), kind="assembly").mass_kda for n in range(60)]
    assert min(drawn) < 60 and max(drawn) > 1500
    decades = np.histogram(np.log10(drawn), bins=[np.log10(20), 2, 3, np.log10(20_000)])[0]
    assert decades.min() >= 6


@pytest.mark.parametrize(("name", "order"), [("C1", 1), ("C5", 5), ("D3", 6), ("T", 12), ("O", 24), ("I", 60)])
def test_a_point_group_is_closed_and_of_its_order(name, order):
    rotations = symmetry.point_group(name)
    assert len(rotations) == order
    assert np.allclose(rotations[0], np.eye(3))
    assert np.allclose(np.linalg.det(rotations), 1)
    products = np.einsum("aij,bjk->abik", rotations, rotations).reshape(-1, 3, 3)
    distances = np.abs(products[:, None] - rotations[None]).max(axis=(2, 3))
    assert distances.min(axis=1).max() < 1e-6
    apart = np.abs(rotations[:, None] - rotations[None]).max(axis=(2, 3)) + 9 * np.eye(order)
    assert apart.min() > 0.01


@pytest.mark.parametrize("name", ["C4", "D2", "T", "O", "I"])
def test_a_symmetric_assembly_looks_the_same_after_each_rotation_of_its_group(name):
    cloud = assemblies.symmetric_assembly(np.random.default_rng(2), 900.0, name)
    cells = _occupied(cloud.points)
    for rotation in symmetry.point_group(name)[1:4]:
        assert np.isin(cells, _occupied(cloud.points @ rotation.T)).mean() > 0.99
    assert np.isin(cells, _occupied(cloud.points @ domains.turn_about_z(0.7).T)).mean() < 0.9


@pytest.mark.parametrize("name", ["C3", "D4", "O", "I"])
def test_subunits_touch_without_sinking_into_one_another(name):
    """Copies must not share space: hardly a bead has one of another copy where its own volume lies."""
    rotations = symmetry.point_group(name)
    cloud = assemblies.symmetric_assembly(np.random.default_rng(4), 30.0 * len(rotations), name)
    copies = cloud.points.reshape(len(rotations), -1, 3)
    others = copies[1:].reshape(-1, 3)
    apart = np.sqrt(((copies[0][:, None] - others[None]) ** 2).sum(axis=-1)).min(axis=1)
    assert apart.min() < 15
    assert (apart < 3).mean() < 0.15


def test_domains_fill_the_volume_of_their_mass():
    for seed in range(4):
        domain = domains.protein_domain(np.random.default_rng(seed), 40.0, proportions=(1, 1, 1))
        gyration = np.sqrt((domain.points**2).sum(axis=1).mean())
        assert gyration == pytest.approx(np.sqrt(3 / 5) * domains.domain_radius(40.0), rel=0.12)
        assert len(domain.points) == pytest.approx(40e3 / domains.RESIDUE_DALTON, rel=0.3)


def test_a_domain_is_textured_like_secondary_structure_and_not_like_gravel():
    """Power at 10 angstrom stands above that of the same beads placed at random in the same ball."""
    ratios = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        domain = domains.protein_domain(rng, 60.0, proportions=(1, 1, 1))
        gravel = rng.uniform(-30, 30, (20_000, 3))
        gravel = gravel[np.sqrt((gravel**2).sum(axis=1)) < 25][: len(domain.points)]
        waves = domains.random_unit(rng, 4000) * (2 * np.pi / rng.uniform(8.5, 11.5, (4000, 1)))
        phases = [np.float32(points @ waves.T) for points in (domain.points, gravel)]
        powers = [np.cos(phase).sum(axis=0) ** 2 + np.sin(phase).sum(axis=0) ** 2 for phase in phases]
        strongest = [np.quantile(power, 0.995) / len(phase) for power, phase in zip(powers, phases, strict=True)]
        ratios.append(np.sqrt(strongest[0] / strongest[1]))
    assert np.mean(ratios) > 1.5


def test_a_bilayer_has_two_dense_leaflets_and_thin_tails():
    patch = membranes.bilayer_patch(np.random.default_rng(1), radius_angstrom=120, proteins=0, protein_kda=(30, 60))
    heights = patch.points[:, 0]
    inside, total = np.abs(heights) < 12, patch.potential.sum()
    assert abs(patch.potential[inside].sum()) < 0.35 * total
    for side in (1, -1):
        head = side * heights > 14
        assert patch.potential[head].sum() > 0.3 * total
        assert 17 < np.average(side * heights[head], weights=patch.potential[head]) < 22


def test_filaments_are_long_along_z_and_shells_are_hollow(library):
    for model in library["filament"]:
        extent = np.ptp(model.points_angstrom, axis=0)
        assert 850 < extent[0] < 2300 and extent[0] > 2 * extent[1:].max()
    for model in library["shell"]:
        radius = np.sqrt((model.points_angstrom**2).sum(axis=1))
        wall = np.quantile(radius, 0.98)
        assert wall > 70
        if "empty" in model.name:
            assert (radius < 0.5 * wall).mean() < 0.01


@pytest.mark.parametrize("kind", ["filament", "bilayer", "assembly"])
def test_a_molecule_is_turned_so_that_it_fits_in_the_ice(library, kind):
    model = library[kind][0]
    flattest = np.sqrt(np.linalg.eigvalsh(np.cov(model.points_angstrom.T))[0]) * 6 + 60
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rotation = molecules.rotation_in_ice(model, rng, thickness_angstrom=flattest)
        assert np.linalg.det(rotation) == pytest.approx(1)
        assert np.ptp(model.points_angstrom @ rotation[0]) < 1.3 * flattest


def test_what_is_kept_for_judging_does_not_arise(monkeypatch):
    asked = []
    domain = domains.protein_domain(np.random.default_rng(0), 20.0)

    def ask(rng, mass_kda, symmetry_name, **_):
        asked.append((symmetry_name, mass_kda))
        return domain  # building them takes seconds, and what is built was asked for

    monkeypatch.setattr(assemblies, "symmetric_assembly", ask)
    for n in range(600):
        molecules.random_molecule(np.random.default_rng([11, n]), kind="assembly")
    assert {name[0] for name, _ in asked} == set("CDTOI")
    for symmetry_name, mass in asked:
        assert symmetry_name[1:] != "7"
        assert not (symmetry_name == "O" and 300 < mass < 700)


def test_unknown_kinds_and_symmetries_are_refused_by_name():
    with pytest.raises(UsageError, match="'virus'"):
        molecules.MoleculeDistribution(kinds={"virus": 1.0})
    with pytest.raises(UsageError, match="'X'"):
        molecules.MoleculeDistribution(symmetries={"X": 1.0})
    with pytest.raises(UsageError, match="'ghost'"):
        molecules.random_molecule(np.random.default_rng(0), kind="ghost")
    with pytest.raises(UsageError, match="one above 0"):
        molecules.MoleculeDistribution(kinds={"shell": 0.0})


def test_a_library_takes_seconds():
    start = time.process_time()
    molecules.molecule_library(1, 20)
    assert time.process_time() - start < 10  # 0.6 s on an idle core.


def _occupied(points: np.ndarray) -> np.ndarray:
    """Cells of 6 angstrom that hold a bead or lie beside one, each as one number: independent of rounding at their borders."""
    cells = np.unique(np.floor(points / 6).astype(int) + 1000, axis=0)
    steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.unique((cells[:, None] + steps) @ [2000 * 2000, 2000, 1])


def test_projections_have_the_power_that_those_of_atomic_structures_have():
    """Power a kilodalton by band of frequency, decades: the means over nine structures of 86 to 1236 kDa, from their atoms."""
    edges = [1 / 80, 1 / 40, 1 / 25, 1 / 16, 1 / 12, 1 / 9, 1 / 7]
    measured = [6.76, 5.96, 5.17, 4.78, 4.51, 4.23]
    plane = FrequencyPlane.of((256, 256), 1.5, "cpu")
    length = plane.length.numpy()
    found = []
    for number in range(12):
        model = molecules.random_molecule(np.random.default_rng([77, number]), kind="assembly")
        rotations = np.array([random_rotation(np.random.default_rng(turn)) for turn in range(3)])
        power = np.zeros(length.shape)
        for rotation in rotations:
            placed = Placed(model, np.array([[128.0, 128.0]]), rotation[None], np.zeros(1))
            power += np.abs(np.fft.rfft2(projected_potential(placed, plane).numpy())) ** 2 / len(rotations)
        bands = [power[(length >= low) & (length < high)].mean() for low, high in itertools.pairwise(edges)]
        found.append(np.log10(np.array(bands) / model.mass_kda))
    assert np.mean(found, axis=0) == pytest.approx(measured, abs=0.25)
