from __future__ import annotations

import numpy as np
import pytest

from cryoplug.simulation import field, specimen
from cryoplug.simulation.planes import FrequencyPlane


@pytest.fixture(scope="module")
def models() -> tuple[specimen.ParticleModel, ...]:
    return specimen.particle_models(np.random.default_rng(0))


def projected_potential(model, rotation, shape, centre, pixel) -> np.ndarray:
    placed = field.Placed(model, np.array([centre]), rotation[None], np.zeros(1))
    return field.projected_potential(placed, FrequencyPlane.of(shape, pixel, "cpu")).double().numpy()


def project(model: specimen.ParticleModel, seed: int, pixel: float = 3.0, centre: tuple[float, float] = (64.3, 60.8)):
    """Projected potential, volt * angstrom, as the engine draws it."""
    rotation = specimen.random_rotation(np.random.default_rng(seed))
    return projected_potential(model, rotation, (128, 128), centre, pixel)


def test_there_are_five_different_shapes(models):
    assert [model.name for model in models] == ["sphere", "shell", "rod", "ring", "cluster"]
    assert all(len(model.points_angstrom) > 100 for model in models)


def test_projection_keeps_the_integral_in_every_orientation(models):
    for model in models:
        expected = len(model.points_angstrom) * model.blob_volt_angstrom3
        for seed in range(3):
            assert project(model, seed).sum() * 3.0**2 == pytest.approx(expected, rel=1e-4)


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


def test_a_blob_has_its_place_and_its_width():
    model = specimen.ParticleModel("point", np.zeros((1, 3)), 1000.0)
    image = projected_potential(model, np.eye(3), (64, 64), (32.5, 31.5), 2.0)
    y, x = np.mgrid[:64, :64]
    assert (image * y).sum() / image.sum() == pytest.approx(32.5, rel=1e-4)
    assert (image * x).sum() / image.sum() == pytest.approx(31.5, rel=1e-4)
    assert 2.0 * np.sqrt((image * (y - 32.5) ** 2).sum() / image.sum()) == pytest.approx(4.5, rel=0.03)


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
