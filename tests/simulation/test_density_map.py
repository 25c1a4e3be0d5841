from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cryoplug.errors import InputError
from cryoplug.simulation import density_map, field, specimen
from cryoplug.simulation.density_map import DensityMap, particle_from_map
from cryoplug.simulation.micrograph import SimulationSettings, simulate_micrograph
from cryoplug.simulation.planes import FrequencyPlane


def ball(radius_angstrom: float, voxel: float) -> DensityMap:
    side = int(2 * radius_angstrom / voxel) + 9
    z, y, x = (voxel * (np.indices((side, side, side)) - side // 2)).astype(np.float32)
    inside = z * z + y * y + x * x <= radius_angstrom**2
    return DensityMap(np.where(inside, 3.0, 0.0).astype(np.float32), voxel, name="ball")


def test_a_ball_projects_to_its_chord_times_the_contrast_of_protein() -> None:
    model = particle_from_map(ball(60.0, 4.0))
    rotation = specimen.random_rotation(np.random.default_rng(1))
    placed = field.Placed(model, np.array([[64.0, 64.0]]), rotation[None], np.zeros(1))
    image = field.projected_potential(placed, FrequencyPlane.of((128, 128), 3.0, "cpu")).numpy()
    y, x = np.mgrid[:128, :128]
    distance = 3.0 * np.hypot(y - 64, x - 64)
    for ring in (10.0, 30.0, 45.0):
        measured = image[np.abs(distance - ring) < 4].mean()
        chord = 2 * np.sqrt(60.0**2 - ring**2)
        assert measured == pytest.approx(specimen.PROTEIN_CONTRAST_VOLT * chord, rel=0.05)
    # The lattice of voxels leaves no trace: the middle is as smooth as a chord is.
    assert image[distance < 15].std() < 0.03 * image[distance < 15].mean()


def test_only_voxels_above_the_threshold_count_and_the_mass_is_centred() -> None:
    voxels = np.zeros((8, 9, 10), np.float32)
    voxels[1, 2, 3], voxels[5, 2, 3], voxels[0, 0, 0] = 1.0, 3.0, 0.2
    model = particle_from_map(DensityMap(voxels, 2.0, threshold=0.5))
    assert model.points_angstrom.tolist() == [[-6.0, 0.0, 0.0], [2.0, 0.0, 0.0]]
    assert np.sum(model.blob_volt_angstrom3) == pytest.approx(2 * specimen.PROTEIN_CONTRAST_VOLT * 8.0)


@pytest.mark.parametrize("threshold", [4.0, -1.0])
def test_a_threshold_that_takes_nothing_or_negative_density_is_refused(threshold: float) -> None:
    density = dataclasses.replace(ball(20.0, 4.0), threshold=threshold)
    density.voxels[0, 0, 0] = -0.5
    with pytest.raises(InputError, match=r"threshold|lie above"):
        particle_from_map(density)


def test_the_molecule_decides_the_settings_digest() -> None:
    small, large, again = (particle_from_map(ball(radius, 4.0)) for radius in (20.0, 24.0, 20.0))
    digests = {SimulationSettings(molecules=given).digest() for given in ((), (small,), (large,), (small, large))}
    assert len(digests) == 4
    assert SimulationSettings(molecules=(again,)).digest() in digests


def test_particles_of_a_map_are_dark_and_alone_in_particles_only() -> None:
    settings = SimulationSettings(
        size_px=320,
        pixel_size_angstrom=4.0,
        defocus_um=(1.5, 1.5),
        molecules=(particle_from_map(ball(60.0, 4.0)),),
        particles=6,
    )
    micrograph = simulate_micrograph(settings, 0)
    assert {particle.model.name for particle in micrograph.particles} == {"ball"}
    only, clean = micrograph.particles_only, micrograph.clean
    ground = np.median(only)
    for particle in micrograph.particles:
        assert only[int(particle.y_px), int(particle.x_px)] < ground
    assert only.mean(dtype=np.float64) == pytest.approx(clean.mean(dtype=np.float64), rel=0.01)
    assert only.std() < clean.std()
    assert np.corrcoef(only.ravel(), clean.ravel())[0, 1] > 0.4


def test_a_map_of_many_voxels_looks_the_same_from_fewer_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    z, y, x = np.indices((40, 40, 40)) - 20
    voxels = np.zeros((40, 40, 40), np.float32)
    for place in rng.uniform(-9, 9, (12, 3)):
        voxels += np.exp(-((z - place[0]) ** 2 + (y - place[1]) ** 2 + (x - place[2]) ** 2) / 8)
    density = DensityMap(voxels, 2.0, threshold=0.02)
    whole = particle_from_map(density)
    monkeypatch.setattr(density_map, "MAX_BLOBS", len(whole.points_angstrom) // 6)
    coarse = particle_from_map(density)
    assert len(coarse.points_angstrom) <= len(whole.points_angstrom) // 6
    assert np.sum(coarse.blob_volt_angstrom3) == pytest.approx(np.sum(whole.blob_volt_angstrom3))
    plane = FrequencyPlane.of((64, 64), 2.5, "cpu")
    turn = specimen.random_rotation(rng)
    one, other = (
        field.projected_potential(field.Placed(model, np.array([[32.0, 32.0]]), turn[None], np.zeros(1)), plane).numpy()
        for model in (whole, coarse)
    )
    assert np.sqrt(((one - other) ** 2).mean()) < 0.04 * one.std()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_map_with_voxels_that_are_no_numbers_is_refused(value: float) -> None:
    density = dataclasses.replace(ball(20.0, 4.0), threshold=0.5)
    density.voxels[0, 0, 0] = value
    with pytest.raises(InputError, match="not numbers"):
        particle_from_map(density)
