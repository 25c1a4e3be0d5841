from __future__ import annotations

import numpy as np
import pytest

from cryoplug.simulation.molecules import random_molecule
from cryoplug.simulation.placing import place_particles
from cryoplug.simulation.specimen import particle_models

MODELS = particle_models(np.random.default_rng(0))


def scattered(models, count, extent=(3000.0, 2500.0), thickness=400.0, seed=2):
    return place_particles(
        models, count, extent_angstrom=extent, thickness_angstrom=thickness, rng=np.random.default_rng(seed)
    )


def test_projections_do_not_overlap():
    placed = scattered(MODELS, 80)
    assert len(placed) > 50
    crowded = np.zeros((300, 250), int)
    for choice, y, x, _, rotation in placed:
        assert 0 <= y < 3000 and 0 <= x < 2500
        flat = (MODELS[choice].points_angstrom @ rotation.T)[:, 1:] + (y, x)
        cells = np.unique(np.floor(flat / 10).astype(int), axis=0)
        inside = ((cells >= 0) & (cells < crowded.shape)).all(axis=1)
        crowded[tuple(cells[inside].T)] += 1
    assert (crowded > 1).sum() < 0.03 * (crowded > 0).sum()


def test_by_itself_a_quarter_of_the_field_is_covered():
    placed = scattered(MODELS, None, extent=(6000.0, 6000.0))
    areas = [np.pi * MODELS[choice].radius_angstrom ** 2 for choice, *_ in placed]
    assert 0.12 < sum(areas) / 6000**2 < 0.6


def test_a_full_field_leaves_particles_out_instead_of_looping():
    assert 1 <= len(scattered(MODELS, 500, extent=(500.0, 500.0))) < 40


def test_filaments_may_lie_side_by_side():
    """Discs around their middles would leave room for one or two."""
    filament = random_molecule(np.random.default_rng(3), kind="filament")
    assert len(scattered([filament], 30, extent=(3000.0, 3000.0))) > 5


def test_particles_lie_between_the_surfaces_of_the_ice():
    heights = [(choice, height, rotation) for choice, _, _, height, rotation in scattered(MODELS, 60, thickness=500.0)]
    for choice, height, rotation in heights:
        along = MODELS[choice].points_angstrom @ rotation[0]
        assert along.max() + height < 250 and along.min() + height > -250
    assert np.std([height for _, height, _ in heights]) > 60
    for _, _, _, height, _ in scattered(MODELS, 20, thickness=60.0):
        assert height == pytest.approx(0)
