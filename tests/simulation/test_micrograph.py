from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from cryoplug.errors import UsageError
from cryoplug.simulation import micrograph as micrographs
from cryoplug.simulation.field import Dirt
from cryoplug.simulation.micrograph import SimulatedMicrograph, SimulationSettings, simulate_micrograph, true_particles
from cryoplug.simulation.optics import Optics
from cryoplug.simulation.placing import hidden_part
from cryoplug.simulation.planes import FrequencyPlane
from cryoplug.simulation.specimen import ParticleModel
from tests.simulation.ctf_formula import contrast_transfer

SETTINGS = SimulationSettings(size_px=320, pixel_size_angstrom=4.0, seed=3)


@pytest.fixture(scope="module")
def micrograph() -> SimulatedMicrograph:
    return simulate_micrograph(SETTINGS, 1)


def test_same_seed_and_index_give_the_same_bytes(micrograph):
    again = simulate_micrograph(SETTINGS, 1)
    for kind in ("even", "odd", "clean", "noisy"):
        assert getattr(again, kind).tobytes() == getattr(micrograph, kind).tobytes()


@pytest.mark.parametrize(("seed", "index"), [(3, 0), (4, 1)])
def test_another_seed_or_index_gives_another_micrograph(micrograph, seed, index):
    other = simulate_micrograph(dataclasses.replace(SETTINGS, seed=seed), index)
    assert other.defocus_um != micrograph.defocus_um
    assert abs(np.corrcoef(other.clean.ravel(), micrograph.clean.ravel())[0, 1]) < 0.5


def test_mean_counts_are_dose_times_pixel_area(micrograph):
    assert micrograph.clean.mean(dtype=np.float64) == pytest.approx(40 * 16, rel=1e-5)
    assert micrograph.noisy.mean(dtype=np.float64) == pytest.approx(640, abs=5 * np.sqrt(640) / 320)


def test_even_and_odd_sum_to_noisy_exactly(micrograph):
    assert np.array_equal(micrograph.even.astype(np.float64) + micrograph.odd, micrograph.noisy)
    assert micrograph.noisy.dtype == micrograph.clean.dtype == np.float32
    assert micrograph.noisy.shape == micrograph.clean.shape == (320, 320)


def test_noise_of_even_and_odd_is_independent(micrograph):
    even, odd = micrograph.even - micrograph.clean / 2, micrograph.odd - micrograph.clean / 2
    assert abs(np.corrcoef(even.ravel(), odd.ravel())[0, 1]) < 4 / np.sqrt(even.size)


def test_noise_has_the_variance_of_its_expectation(micrograph):
    noise = (micrograph.noisy - micrograph.clean).astype(np.float64)
    assert noise.var() == pytest.approx(640, rel=0.03)


def test_particles_are_dark_on_bright_ground(micrograph):
    y, x = np.mgrid[:320, :320]
    ground = np.median(micrograph.clean)
    solid = [
        (each.y_px, each.x_px)
        for each in micrograph.particles
        if each.model.name == "sphere" and 20 < each.y_px < 300 and 20 < each.x_px < 300
    ]
    assert solid
    for row, column in solid:
        assert micrograph.clean[np.hypot(y - row, x - column) < 8].mean() < 0.985 * ground


def test_every_shape_occurs():
    settings = dataclasses.replace(SETTINGS, size_px=640, pixel_size_angstrom=8.0)
    names = {particle.model.name for particle in true_particles(settings, 0)}
    assert names == {"sphere", "shell", "rod", "ring", "cluster"}


def test_the_truth_is_dark_in_frequency_where_the_ctf_is_zero():
    settings = SimulationSettings(size_px=512, pixel_size_angstrom=2.6, defocus_um=(2.0, 2.0), particles=0)
    clean = simulate_micrograph(settings, 0).clean.astype(np.float64)
    window = np.hanning(512)
    power = np.abs(np.fft.rfft2((clean - clean.mean()) * window[:, None] * window[None, :])) ** 2
    frequency = FrequencyPlane.of((512, 512), 2.6, "cpu").length.double().numpy()
    transfer = np.abs(contrast_transfer(frequency, Optics(defocus_um=2.0)))
    band = (frequency > 0.05) & (frequency < 0.11)
    assert power[band & (transfer < 0.1)].mean() < 0.15 * power[band & (transfer > 0.9)].mean()


def test_no_particles_is_bare_ice():
    assert simulate_micrograph(dataclasses.replace(SETTINGS, size_px=64, particles=0), 0).particles == ()


def test_defocus_is_drawn_from_its_range():
    drawn = [SETTINGS.optics_of(index).defocus_um for index in range(50)]
    assert 0.8 <= min(drawn) < 1.1
    assert 2.2 < max(drawn) <= 2.5


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(UsageError) as caught:
        SimulationSettings(size_px=3, dose_e_per_angstrom2=float("nan"), defocus_um=(3.0, 1.0), seed=-1)
    for word in ("--size 3", "--dose nan", "--seed -1", "lower value first"):
        assert word in str(caught.value)


def test_digest_changes_with_every_setting():
    molecule = ParticleModel("two", np.zeros((2, 3), np.float32), 7.0)
    values = (64, 1.0, 2.0, (1.0, 1.1), 0.03, 5, 9, 200.0, 1.4, 0.07, (molecule,), "random", 6)
    values = (*values, (5.0, 90.0), (90.0, 90.0), 500.0, "integrating", True)
    changed = [
        dataclasses.replace(SETTINGS, **{field.name: value})
        for field, value in zip(dataclasses.fields(SimulationSettings), values, strict=True)
    ]
    assert len({settings.digest() for settings in [SETTINGS, *changed]}) == len(changed) + 1


def test_the_grain_of_the_ice_adds_power_and_leaves_the_particles_alone():
    smooth, coarse = (
        simulate_micrograph(dataclasses.replace(SETTINGS, ice_grain_rad=grain), 0) for grain in (0.0, 0.05)
    )
    assert np.array_equal(smooth.particles_only, coarse.particles_only)
    assert np.diff(coarse.clean, axis=0).var() > 2 * np.diff(smooth.clean, axis=0).var()


def test_an_integrating_camera_colours_the_noise_and_halves_stay_independent():
    made = simulate_micrograph(dataclasses.replace(SETTINGS, detector="integrating"), 0)
    noise = [(half - made.clean / 2).astype(np.float64) for half in (made.even, made.odd)]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 4 / np.sqrt(noise[0].size)
    frequency = FrequencyPlane.of((320, 320), 1.0, "cpu").length.numpy()
    power = np.abs(np.fft.rfft2(noise[0])) ** 2
    assert power[frequency > 0.4].mean() < 0.5 * power[(frequency > 0) & (frequency < 0.1)].mean()
    white = np.abs(np.fft.rfft2(simulate_micrograph(SETTINGS, 0).even - made.clean / 2)) ** 2
    assert white[frequency > 0.4].mean() > 0.9 * white[(frequency > 0.1) & (frequency < 0.2)].mean()


def test_dirt_lies_on_about_half_of_the_micrographs_and_never_without_being_asked_for():
    small = dataclasses.replace(SETTINGS, size_px=96, pixel_size_angstrom=20.0, particles=0)
    spread = {
        dirt: np.array(
            [
                simulate_micrograph(dataclasses.replace(small, dirt=dirt), index).clean.std() / 16_000
                for index in range(24)
            ]
        )
        for dirt in (False, True)
    }
    limit = spread[False].max() * 1.3
    assert 5 <= (spread[True] > limit).sum() <= 17


def test_particles_and_lens_are_known_without_making_the_micrograph(micrograph):
    assert micrograph.optics == SETTINGS.optics_of(1)
    for one, other in zip(micrograph.particles, true_particles(SETTINGS, 1), strict=True):
        assert (one.y_px, one.x_px, one.depth_angstrom, one.number) == (
            other.y_px,
            other.x_px,
            other.depth_angstrom,
            other.number,
        )


def test_each_lens_keeps_to_its_ranges():
    settings = dataclasses.replace(SETTINGS, astigmatism_angstrom=(100.0, 400.0), phase_shift_deg=(60.0, 120.0))
    lenses = [settings.optics_of(index) for index in range(60)]
    for name, low, high in (("astigmatism_angstrom", 100, 400), ("phase_shift_deg", 60, 120)):
        values = [getattr(lens, name) for lens in lenses]
        assert low <= min(values) < low + 0.2 * (high - low) < high - 0.2 * (high - low) < max(values) <= high
    angles = [lens.astigmatism_angle_deg for lens in lenses]
    assert 0 <= min(angles) < 30 and 150 < max(angles) <= 180


@pytest.mark.parametrize("axis", [0, 1])
def test_the_edge_of_gold_does_not_ring_at_the_borders_of_a_micrograph(monkeypatch, axis):
    """Beyond the border the field joins the other side of the gold: that step rang, up or down in every other pixel."""

    def gold(shape, *others, **more):
        depth = torch.zeros(shape)
        depth.narrow(axis, shape[axis] // 2, shape[axis] // 2).fill_(2.5)
        return Dirt(torch.zeros(shape), depth, torch.zeros(shape))

    monkeypatch.setattr(micrographs, "random_dirt", gold)
    clean = simulate_micrograph(dataclasses.replace(SETTINGS, dirt=True, particles=0, ice_grain_rad=0.0), 0).clean
    border = np.diff(clean, n=2, axis=axis).take(range(8), axis=axis)
    assert np.abs(border).max() < 1e-4 * np.median(clean.take(range(8), axis=axis))


def test_particles_that_dirt_hides_are_not_listed(monkeypatch):
    """A picker cannot find them. Here the left half of each micrograph is opaque."""

    def half(shape, *others, **more):
        opaque = torch.zeros(shape)
        opaque[:, : shape[1] // 2] = 1
        return Dirt(torch.zeros(shape), torch.zeros(shape), opaque)

    monkeypatch.setattr(micrographs, "random_dirt", half)
    listed = simulate_micrograph(dataclasses.replace(SETTINGS, dirt=True), 1).particles
    everything = true_particles(SETTINGS, 1)
    assert 0 < len(listed) < len(everything)
    assert {each.x_px for each in listed} >= {each.x_px for each in everything if each.x_px > 200}
    assert all(each.x_px > 120 for each in listed)
    # At the border of the dirt, the larger part decides.
    part = {each.x_px: hidden_part(each, half((320, 320)).opaque.numpy(), 4.0) for each in everything}
    assert {each.x_px for each in listed} == {x for x, hidden in part.items() if hidden < 0.5}
