from __future__ import annotations

import numpy as np
import pytest
import torch

from cryoplug.simulation.field import expose
from cryoplug.simulation.molecules import random_molecule
from cryoplug.simulation.population import Population, rotation_matrices
from cryoplug.simulation.specimen import particle_models

LIBRARY = particle_models(np.random.default_rng(0))


def test_rotations_are_proper_and_turn_about_their_axes():
    turned = rotation_matrices(np.random.default_rng(0).standard_normal((50, 4)))
    np.testing.assert_allclose(turned @ turned.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (50, 3, 3)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turned), 1)
    quarter = rotation_matrices(np.array([[1.0, 1.0, 0.0, 0.0]]))[0]
    np.testing.assert_allclose(quarter @ [1, 0, 0], [1, 0, 0], atol=1e-12)
    assert abs((quarter @ [0, 1, 0])[2]) == pytest.approx(1)


def test_a_field_follows_from_seed_and_number_alone():
    first, again, other = (Population().draw(LIBRARY, size_px=64, seed=5, number=n) for n in (3, 3, 4))
    assert first[0] == again[0] != other[0]
    for one, two in zip(first[1], again[1], strict=True):
        assert np.array_equal(one.centres_px, two.centres_px) and np.array_equal(one.rotations, two.rotations)


def test_draws_keep_to_their_ranges_and_reach_far_into_them():
    population = Population()
    drawn = [population.draw(LIBRARY, size_px=256, seed=0, number=n) for n in range(400)]
    for name, low, high in (("pixel_size_angstrom", 1.8, 6.6), ("dose_e_per_angstrom2", 0.3, 100)):
        values = np.array([getattr(field, name) for field, _ in drawn])
        assert low <= values.min() < low * 1.4 and high >= values.max() > high / 1.4, name
    empty = np.mean([not placed for _, placed in drawn])
    assert empty == pytest.approx(population.empty, abs=0.05)
    plates = np.mean([field.optics.phase_shift_deg > 0 for field, _ in drawn])
    assert plates == pytest.approx(population.phase_plate, abs=0.04)


@pytest.mark.parametrize("dose", [8.0, 20.0])
def test_textures_lie_below_particles_or_are_alone_and_no_faint_field_has_one(dose):
    population = Population(scrambled=1.0, empty=0.0, scrambled_dose_e_per_angstrom2=dose)
    alone = []
    for number in range(200):
        field, placed = population.draw(LIBRARY, size_px=128, seed=3, number=number)
        scrambled = [each.scrambled for each in placed]
        assert any(scrambled) == (field.dose_e_per_angstrom2 >= dose)
        if any(scrambled):
            alone.append(all(scrambled))
    assert np.mean(alone) == pytest.approx(population.scrambled_alone, abs=0.12)


@pytest.mark.parametrize("number", range(12))
def test_every_field_can_be_made_and_recorded(number):
    field, placed = Population().draw(LIBRARY, size_px=128, seed=2, number=number)
    made = expose(field, placed, torch.Generator().manual_seed(number))
    noisy = made.record(torch.Generator().manual_seed(1), counted=False)
    for image in (noisy, made.image, made.particles):
        assert image.shape == (128, 128) and bool(image.isfinite().all())
    assert bool(made.particles.any()) == any(not each.scrambled for each in placed)


@pytest.mark.parametrize("kind", ["filament", "rod", "bilayer"])
def test_what_is_long_or_wide_lies_nearly_flat_in_the_ice(kind):
    model = random_molecule(np.random.default_rng(3), kind=kind)
    found = 0
    for number in range(30):
        _, placed = Population(empty=0.0).draw([model] * 3, size_px=512, seed=0, number=number)
        for each in placed:
            along_beam = np.ptp(model.points_angstrom @ each.rotations[:, 0].T, axis=0)
            across = np.sort([np.ptp(model.points_angstrom[:, axis]) for axis in range(3)])
            assert np.median(along_beam) < 1.5 * across[0] + 0.35 * across[2]
            found += len(along_beam)
    assert found > 30
