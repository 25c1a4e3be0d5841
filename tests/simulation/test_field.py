from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from cryoplug.simulation.camera import Camera, recorded
from cryoplug.simulation.field import Field, Placed, expose
from cryoplug.simulation.ice import Ice, grain_terms, ice_thickness_map
from cryoplug.simulation.optics import Optics, contrast_transfer_plane, interaction_constant
from cryoplug.simulation.planes import FrequencyPlane
from cryoplug.simulation.specimen import particle_models
from tests.simulation.ctf_formula import contrast_transfer

QUIET = Ice(slope=0, texture=0, grain_rad=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_particle(size_px: int, *, depth_angstrom: float = 0.0, contrast: float = 1.0) -> Placed:
    ball = particle_models(np.random.default_rng(0))[0]
    middle = np.full((1, 2), size_px / 2)
    return Placed(ball, middle, np.eye(3)[None], np.array([depth_angstrom]), contrast)


def rings(plane: FrequencyPlane, image: torch.Tensor, edges: list[float]) -> list[float]:
    """Mean power per pixel between frequencies, 1 for white noise of variance 1."""
    power = torch.fft.rfft2(image).abs() ** 2 / image.numel()
    return [
        float(power[(plane.length >= low) & (plane.length < high)].mean()) for low, high in itertools.pairwise(edges)
    ]


@pytest.mark.parametrize(("voltage", "cs", "shift"), [(300, 2.7, 0), (200, 0.01, 90), (120, 2.0, 35)])
def test_without_astigmatism_the_plane_has_the_radial_transfer_function(voltage, cs, shift):
    optics = Optics(1.7, voltage, cs, 0.08, b_factor_angstrom2=0, phase_shift_deg=shift)
    plane = FrequencyPlane.of((96, 81), 2.0, "cpu")
    radial = contrast_transfer(plane.length.double().numpy(), optics)
    np.testing.assert_allclose(contrast_transfer_plane(plane, optics), radial, atol=2e-4)


@pytest.mark.parametrize(("angle", "unit"), [(0.0, 1.0), (90.0, 1.0), (45.0, 2**0.5)])
def test_along_its_axes_an_astigmatic_lens_has_its_two_defoci(angle, unit):
    optics = Optics(1.5, b_factor_angstrom2=0, astigmatism_angstrom=3000, astigmatism_angle_deg=angle)
    assert optics.defocus_angstrom == (16500, 13500)
    transfer = contrast_transfer_plane(FrequencyPlane.of((720, 720), 2.0, "cpu"), optics)
    for defocus, turn in zip(optics.defocus_angstrom, (0, 90), strict=True):
        direction = np.deg2rad(angle + turn)
        for radius in (60 * unit, 120 * unit):
            row, column = round(radius * np.sin(direction)), round(radius * np.cos(direction))
            row, column = (-row, -column) if column < 0 else (row, column)
            expected = contrast_transfer(
                np.array([radius / 1440]), dataclasses.replace(optics, defocus_um=defocus / 1e4)
            )
            assert float(transfer[row, column]) == pytest.approx(float(expected[0]), abs=1e-3)


def test_a_particle_below_the_middle_is_further_underfocus_by_its_depth():
    below = expose(
        Field((256, 256), 3.0, optics=Optics(1.0), ice=QUIET), [one_particle(256, depth_angstrom=1500)], generator()
    )
    lens = expose(Field((256, 256), 3.0, optics=Optics(1.15), ice=QUIET), [one_particle(256)], generator())
    torch.testing.assert_close(below.particles, lens.particles, atol=0.02, rtol=0)


def test_particles_are_dark_under_focus_and_the_truths_differ_by_the_ice_alone():
    made = expose(Field((256, 256), 3.0, ice=QUIET), [one_particle(256)], generator())
    assert float(made.particles[118:138, 118:138].mean()) < -0.02 * 360
    difference = made.image - made.particles
    assert float(difference.std()) < 0.01 * float(made.particles.std())
    assert float(made.image.mean()) == pytest.approx(360, rel=1e-3)


def test_an_empty_field_has_no_particles_and_its_ice_stays():
    made = expose(Field((128, 128), 3.0), [], generator())
    assert not made.particles.any()
    assert float(made.image.std()) > 0


def test_what_wraps_around_is_what_a_shifted_field_shows():
    here = one_particle(128)
    there = dataclasses.replace(here, centres_px=here.centres_px + 128 - 64)
    made = [expose(Field((128, 128), 3.0, ice=QUIET), [each], generator()).particles for each in (here, there)]
    torch.testing.assert_close(made[1], made[0].roll((64, 64), (0, 1)), atol=0.02, rtol=0)


def test_the_same_seed_gives_the_same_field_and_another_one_another():
    fields = [
        expose(Field((64, 64), 3.0), [one_particle(64)], generator(seed)).record(generator(9)) for seed in (1, 1, 2)
    ]
    assert torch.equal(fields[0], fields[1])
    assert not torch.equal(fields[0], fields[2])


def test_the_noise_of_counts_is_white_with_the_variance_of_the_mean():
    plane = FrequencyPlane.of((512, 512), 1.0, "cpu")
    expected = torch.full((512, 512), 20.0)
    for counted in (True, False):
        image = recorded(expected, Camera(), plane, generator(), counted=counted)
        assert rings(plane, image - 20, [0.02, 0.1, 0.3, 0.5]) == pytest.approx([20] * 3, rel=0.05)
    assert torch.equal(recorded(expected, Camera(), plane, generator()) % 1, torch.zeros(512, 512))


@pytest.mark.parametrize(
    "camera",
    [Camera(noise_blur=1.0), Camera(coincidence=0.3), Camera(interpolated=1.0), Camera(ripple=(0.5, -0.3))],
    ids=["integrating", "coincidence", "interpolated", "ripple"],
)
def test_the_colour_of_the_noise_is_what_the_camera_says(camera):
    plane = FrequencyPlane.of((512, 512), 1.0, "cpu")
    image = recorded(torch.full((512, 512), 50.0), camera, plane, generator(), counted=False)
    edges = [0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5]
    power = camera.noise_power(plane)
    told = [float(power[(plane.length >= a) & (plane.length < b)].mean()) * 50 for a, b in itertools.pairwise(edges)]
    assert rings(plane, image - 50, edges) == pytest.approx(told, rel=0.1)


def test_a_cropped_image_shows_the_beginning_of_its_cameras_curves():
    coarse, fine = FrequencyPlane.of((64, 64), 4.0, "cpu"), FrequencyPlane.of((256, 256), 1.0, "cpu")
    camera = Camera(pixel_size_angstrom=1.0, noise_blur=1.0)
    torch.testing.assert_close(camera.noise_power(coarse)[:32, :32], camera.noise_power(fine)[:32, :32])
    torch.testing.assert_close(camera.signal_transfer(coarse)[:32, :32], camera.signal_transfer(fine)[:32, :32])


def test_the_grain_of_the_ice_does_not_change_with_the_sampling():
    for pixel in (0.7, 1.3, 2.6):
        plane = FrequencyPlane.of((512, 512), pixel, "cpu")
        grain = plane.back(grain_terms(Ice(), plane, generator()))
        low = (plane.length > 0.02) & (plane.length < 0.06)
        density = float((torch.fft.rfft2(grain).abs() ** 2)[low].mean()) * pixel**2 / grain.numel()
        assert density == pytest.approx(0.012**2 * 98 / np.pi * np.exp(-2 * 49 * 0.04**2 * 1.1), rel=0.1)


def test_the_ice_has_its_mean_thickness_and_grows_along_its_slope():
    plane = FrequencyPlane.of((128, 128), 5.0, "cpu")
    thickness = ice_thickness_map(Ice(thickness_angstrom=500, slope=0.3, slope_angle_rad=np.pi / 2), plane, generator())
    assert float(thickness.mean()) == pytest.approx(500, rel=0.01)
    assert float(thickness[-8:].mean()) > float(thickness[:8].mean()) + 150


def test_a_subtracted_background_leaves_small_things_and_no_mean():
    field = Field((256, 256), 4.0, highpass_angstrom=600, ice=Ice(grain_rad=0))
    made = expose(field, [one_particle(256)], generator())
    assert abs(float(made.image.mean())) < 1e-2
    assert float(made.image[124:132, 124:132].mean()) < -5
    assert abs(float(made.record(generator(3)).mean())) < 1e-2


def test_contrast_scales_the_particles_alone():
    weak, strong = (
        expose(Field((128, 128), 3.0, ice=QUIET), [one_particle(128, contrast=c)], generator()).particles
        for c in (0.5, 1.0)
    )
    torch.testing.assert_close(2 * weak, strong, atol=1e-3, rtol=1e-3)


def test_the_contrast_of_a_thick_slab_is_what_weak_phases_say():
    # At frequency 0 the contrast is 2 A sigma V t: the mean of the field tells it.
    particle = one_particle(256)
    total = float(np.sum(np.broadcast_to(particle.model.blob_volt_angstrom3, len(particle.model.points_angstrom))))
    made = expose(Field((256, 256), 3.0, dose_e_per_angstrom2=10, ice=QUIET), [particle], generator())
    told = -2 * 0.1 * interaction_constant(300) * total / (256 * 3.0) ** 2 * 90
    assert float(made.particles.mean()) == pytest.approx(told, rel=1e-3)


def test_scrambled_particles_keep_their_spectrum_and_are_no_particles():
    rng = np.random.default_rng(3)
    places = rng.uniform(0, 256, (40, 2))
    single = one_particle(256)
    full = dataclasses.replace(
        single, centres_px=places, rotations=np.tile(single.rotations, (40, 1, 1)), depths_angstrom=np.zeros(40)
    )
    settings = Field((256, 256), 3.0, ice=QUIET)
    plane = FrequencyPlane.of((256, 256), 3.0, "cpu")
    seen = expose(settings, [full], generator())
    scrambled = expose(settings, [dataclasses.replace(full, scrambled=True)], generator())
    assert bool(seen.particles.any()) and not scrambled.particles.any()
    edges = [1 / 400, 1 / 100, 1 / 50, 1 / 25, 1 / 12]
    plain, texture = (rings(plane, made.image, edges) for made in (seen, scrambled))
    assert texture == pytest.approx(plain, rel=0.05)

    def skewness(image: torch.Tensor) -> float:
        return float((((image - image.mean()) / image.std()) ** 3).mean())

    assert skewness(seen.image) < -0.8 and abs(skewness(scrambled.image)) < 0.3
    # Particles that lie over such a texture are the truth as they are without it.
    both = expose(settings, [full, dataclasses.replace(full, scrambled=True)], generator())
    torch.testing.assert_close(both.particles, seen.particles)
