from __future__ import annotations

import numpy as np
import pytest

from cryoplug.simulation import specimen


@pytest.fixture(scope="module")
def models() -> tuple[specimen.ParticleModel, ...]:
    return specimen.particle_models(np.random.default_rng(0))


def project(model: specimen.ParticleModel, seed: int, pixel: float = 3.0, centre: tuple[float, float] = (64.3, 60.8)):
    charge = np.zeros((128, 128))
    rotation = specimen.random_rotation(np.random.default_rng(seed))
    specimen.add_particle(charge, model, rotation=rotation, centre_px=centre, pixel_size_angstrom=pixel)
    return specimen.spread_blobs(charge, pixel_size_angstrom=pixel)


def test_there_are_five_different_shapes(models):
    assert [model.name for model in models] == ["sphere", "shell", "rod", "ring", "cluster"]
    assert all(len(model.points_angstrom) > 100 for model in models)


def test_projection_keeps_the_integral_in_every_orientation(models):
    for model in models:
        expected = len(model.points_angstrom) * model.blob_volt_angstrom3
        for seed in range(3):
            assert project(model, seed).sum() * 3.0**2 == pytest.approx(expected, rel=1e-9)


def test_sphere_projects_to_its_chord_times_its_potential(models):
    radius = 65.0
    image = project(models[0], 1, centre=(64, 64))
    y, x = np.mgrid[:128, :128]
    distance = 3.0 * np.hypot(y - 64, x - 64)
    for ring in (10.0, 30.0, 50.0):
        measured = image[np.abs(distance - ring) < 6].mean()
        chord = 2 * np.sqrt(radius**2 - ring**2)
        assert measured == pytest.approx(specimen.PROTEIN_CONTRAST_VOLT * chord, rel=0.08)


def test_shell_and_ring_are_hollow(models):
    shell = project(models[1], 0, centre=(64, 64))
    y, x = np.mgrid[:128, :128]
    distance = 3.0 * np.hypot(y - 64, x - 64)
    assert shell[distance < 30].mean() < 0.7 * shell[np.abs(distance - 92) < 6].mean()
    points = models[3].points_angstrom
    assert np.hypot(points[:, 1], points[:, 2]).min() > 20


def test_spread_gives_a_blob_its_width():
    charge = np.zeros((64, 64))
    model = specimen.ParticleModel("point", np.zeros((1, 3)), 1000.0)
    specimen.add_particle(charge, model, rotation=np.eye(3), centre_px=(32.5, 31.5), pixel_size_angstrom=2.0)
    image = specimen.spread_blobs(charge, pixel_size_angstrom=2.0)
    y, x = np.mgrid[:64, :64]
    assert (image * y).sum() / image.sum() == pytest.approx(32.5)
    assert (image * x).sum() / image.sum() == pytest.approx(31.5)
    assert 2.0 * np.sqrt((image * (y - 32.5) ** 2).sum() / image.sum()) == pytest.approx(4.5, rel=0.03)


def test_particle_outside_the_image_adds_nothing(models):
    assert np.all(project(models[0], 0, centre=(-400.0, 900.0)) == 0)


def test_rotations_are_proper_and_cover_all_directions():
    rng = np.random.default_rng(5)
    axes = []
    for _ in range(400):
        rotation = specimen.random_rotation(rng)
        assert np.allclose(rotation @ rotation.T, np.eye(3))
        assert np.linalg.det(rotation) == pytest.approx(1)
        axes.append(rotation[:, 0])
    assert np.all(np.abs(np.mean(axes, axis=0)) < 4 / np.sqrt(3 * 400))
    assert np.allclose(np.cov(np.array(axes).T), np.eye(3) / 3, atol=0.08)


def test_placed_particles_do_not_overlap_by_more_than_a_tenth(models):
    placed = specimen.place_particles(models, 60, extent_angstrom=(3000, 2500), rng=np.random.default_rng(2))
    assert len(placed) > 40
    for position, (kind, y, x) in enumerate(placed):
        assert 0 <= y < 3000
        assert 0 <= x < 2500
        for other, other_y, other_x in placed[:position]:
            reach = models[kind].radius_angstrom + models[other].radius_angstrom
            assert np.hypot(y - other_y, x - other_x) >= 0.9 * reach - 1e-9


def test_a_full_field_leaves_particles_out_instead_of_looping(models):
    placed = specimen.place_particles(models, 500, extent_angstrom=(500, 500), rng=np.random.default_rng(0))
    assert 1 <= len(placed) < 30


def test_ice_has_the_mean_thickness_and_is_uneven():
    ice = specimen.ice_thickness((256, 192), pixel_size_angstrom=10, mean_angstrom=300, rng=np.random.default_rng(1))
    assert ice.mean() == pytest.approx(300, rel=0.01)
    assert 8 < ice.std() < 60
    assert ice.min() >= 30


def test_ice_grain_has_mean_zero_and_unit_rms():
    grain = specimen.ice_granularity((128, 96), pixel_size_angstrom=2, rng=np.random.default_rng(1))
    assert grain.mean() == pytest.approx(0, abs=1e-12)
    assert grain.std() == pytest.approx(1)
