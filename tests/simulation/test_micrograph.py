from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from cryoplug.errors import UsageError
from cryoplug.simulation.density_map import DensityMap
from cryoplug.simulation.micrograph import SimulatedMicrograph, SimulationSettings, simulate_micrograph
from cryoplug.simulation.optics import Optics, contrast_transfer
from cryoplug.simulation.specimen import frequencies

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
        (row, column)
        for name, row, column in micrograph.particles
        if name == "sphere" and 20 < row < 300 and 20 < column < 300
    ]
    assert solid
    for row, column in solid:
        assert micrograph.clean[np.hypot(y - row, x - column) < 8].mean() < 0.985 * ground


def test_every_shape_occurs():
    settings = dataclasses.replace(SETTINGS, size_px=640, pixel_size_angstrom=8.0)
    names = {name for name, _, _ in simulate_micrograph(settings, 0).particles}
    assert names == {"sphere", "shell", "rod", "ring", "cluster"}


def test_the_truth_is_dark_in_frequency_where_the_ctf_is_zero():
    settings = SimulationSettings(size_px=512, pixel_size_angstrom=2.6, defocus_um=(2.0, 2.0), particles=0)
    clean = simulate_micrograph(settings, 0).clean.astype(np.float64)
    window = np.hanning(512)
    power = np.abs(np.fft.rfft2((clean - clean.mean()) * window[:, None] * window[None, :])) ** 2
    frequency = frequencies((512, 512), 2.6)
    transfer = np.abs(contrast_transfer(frequency, Optics(defocus_um=2.0)))
    band = (frequency > 0.05) & (frequency < 0.11)
    assert power[band & (transfer < 0.1)].mean() < 0.15 * power[band & (transfer > 0.9)].mean()


def test_no_particles_is_bare_ice():
    assert simulate_micrograph(dataclasses.replace(SETTINGS, size_px=64, particles=0), 0).particles == ()


def test_defocus_is_drawn_from_its_range():
    drawn = [SETTINGS.defocus_of(index) for index in range(50)]
    assert 0.8 <= min(drawn) < 1.1
    assert 2.2 < max(drawn) <= 2.5


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(UsageError) as caught:
        SimulationSettings(size_px=3, dose_e_per_angstrom2=float("nan"), defocus_um=(3.0, 1.0), seed=-1)
    for word in ("size: 3", "dose: nan", "seed: -1", "lower value first"):
        assert word in str(caught.value)


def test_digest_changes_with_every_setting():
    density = DensityMap(np.ones((2, 2, 2), np.float32), 4.0)
    changed = [
        dataclasses.replace(SETTINGS, **{field.name: value})
        for field, value in zip(
            dataclasses.fields(SimulationSettings),
            (64, 1.0, 2.0, (1.0, 1.1), 0.03, 5, 9, 200.0, 1.4, 0.07, density),
            strict=True,
        )
    ]
    assert len({settings.digest() for settings in [SETTINGS, *changed]}) == len(changed) + 1


def test_the_grain_of_the_ice_adds_power_and_leaves_the_particles_alone():
    smooth, coarse = (
        simulate_micrograph(dataclasses.replace(SETTINGS, ice_grain_rad=grain), 0) for grain in (0.0, 0.05)
    )
    assert np.array_equal(smooth.particles_only, coarse.particles_only)
    assert np.diff(coarse.clean, axis=0).var() > 2 * np.diff(smooth.clean, axis=0).var()


def test_simulation_does_not_import_torch():
    code = "import sys, cryoplug.simulation.micrograph; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
