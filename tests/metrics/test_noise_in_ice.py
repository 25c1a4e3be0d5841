"""Laws of the noise between the particles: it corrects a law that it contradicts, and leaves all others as they are."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from cryoplug.metrics.micrograph_noise import MicrographNoise
from cryoplug.metrics.noise_in_ice import DISTANCES_ANGSTROM, IceNoise, IceSpectrum, checked_in_ice
from cryoplug.metrics.noise_power import POINTS, STEP, unsure
from cryoplug.metrics.noise_shape import NoiseShape

PIXEL = 2.6
SIDE = 512


def law(decibels: float, **changes: object) -> MicrographNoise:
    """White noise of variance 1, and so many decibels more in coarse detail."""
    power = (10 ** (decibels / 10),) * 20 + (1.0,) * (POINTS - 20)
    noise = MicrographNoise(power, NoiseShape(0.0, 0.0), "spectrum", 0.1)
    return dataclasses.replace(noise, **changes)


def blobs(count: int, rng: np.random.Generator) -> np.ndarray:
    """Particles of 6 pixels."""
    image = np.zeros((SIDE, SIDE))
    np.add.at(image, tuple(rng.integers(0, SIDE, (2, count))), -1.0)
    return 72 * np.pi * smooth(image, 6.0)


def smooth(image: np.ndarray, sigma_px: float) -> np.ndarray:
    y, x = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    return np.fft.irfft2(np.fft.rfft2(image) * np.exp(-2 * (np.pi * sigma_px) ** 2 * (y**2 + x**2)), s=image.shape)


@functools.cache
def ice(
    count: int = 40,
    grain: float = 0.0,
    removed: float = 1.0,
    unseen: int = 0,
    windows: int = 6,
    level: float = 1.0,
    gold_px: int = 0,
) -> IceNoise | None:
    """What windows of white noise of variance 1 show to a denoiser that knows the particles, and so much of the grain."""
    rng = np.random.default_rng(4)
    spectrum = IceSpectrum(PIXEL)
    for _ in range(windows):
        particles, hidden = blobs(count, rng), blobs(unseen, rng)
        rough = grain * smooth(rng.normal(size=(SIDE, SIDE)), 2.0)
        noisy = particles + hidden + rough + level * rng.normal(size=(SIDE, SIDE))
        noisy[:, SIDE - gold_px :] = 40 * smooth(rng.normal(size=(SIDE, SIDE)), 8.0)[:, SIDE - gold_px :]
        spectrum.add(noisy, particles + removed * rough, particles)
    return spectrum.found()


def at_distances(noise: MicrographNoise) -> np.ndarray:
    """Decibels above white noise of variance 1."""
    power = np.interp(PIXEL / np.array(DISTANCES_ANGSTROM), np.arange(POINTS) * STEP, noise.power)
    return np.asarray(10 * np.log10(power))


def checked(noise: MicrographNoise, found: IceNoise | None) -> tuple[MicrographNoise, str]:
    return checked_in_ice(noise, found, scale=1.0, pixel_size_angstrom=PIXEL)


def test_places_without_particles_have_the_power_of_the_noise() -> None:
    found = ice()
    assert found is not None
    assert 0.5 < found.part < 0.95
    for power in (found.most, found.least, found.level):
        assert np.abs(10 * np.log10(power).mean()) < 2 * found.error_db
    assert 0.03 < found.error_db < 0.3


def test_a_right_law_stays_as_it_is() -> None:
    assert checked(law(0.0), ice()) == (law(0.0), "")
    assert checked(law(0.0), None) == (law(0.0), "")


def test_a_law_that_is_too_high_is_corrected_where_particles_are_and_stays_where_it_was_fitted() -> None:
    noise, remark = checked(law(1.0), ice())
    assert np.abs(at_distances(noise)).max() < 0.35
    assert "52 to 87 angstrom" in remark
    assert "weaker" in remark
    assert noise.source == "ice"
    assert noise.trusted
    fine = np.arange(POINTS) * STEP > PIXEL / 12
    assert np.allclose(np.array(noise.power)[fine], 1.0, rtol=1e-4)
    assert MicrographNoise.from_dict(noise.to_dict()) == noise


def test_a_law_that_may_be_too_low_is_told_and_stays() -> None:
    """A long tail of the noise and particles that nobody saw look alike."""
    for found in (ice(), ice(count=30, unseen=60)):
        noise, remark = checked(law(-1.0), found)
        assert noise == law(-1.0)
        assert "stronger than assumed" in remark


def test_grain_that_the_denoiser_knows_of_is_not_taken_for_noise() -> None:
    assert checked(law(0.0), ice(grain=0.5)) == (law(0.0), "")


def test_noise_is_never_more_than_the_power_of_the_places() -> None:
    """Even where a poor denoiser takes half of the noise away."""
    found = ice()
    assert found is not None
    poor = dataclasses.replace(found, least=found.least / 2)
    noise, _ = checked(law(1.0), poor)
    assert at_distances(noise).max() < 0.3


def test_where_hardly_a_particle_was_seen_nobody_is_warned_of_more_noise() -> None:
    found = ice(count=0, unseen=60)
    assert found is not None
    assert found.part > 0.95
    assert checked(law(0.0), found) == (law(0.0), "")
    assert checked(law(0.0), dataclasses.replace(found, part=0.8))[1]


def test_a_crowded_micrograph_says_nothing() -> None:
    assert ice(count=1500) is None


@pytest.mark.parametrize(("level", "gold_px"), [(0.9, 0), (1.1, 0), (1.0, 180)])
def test_thick_ice_between_particles_and_a_gold_edge_say_nothing_of_the_law(level: float, gold_px: int) -> None:
    """All noise is weaker or stronger there, not that at low frequencies."""
    found = ice(level=level, gold_px=gold_px)
    assert checked(law(0.0), found) == (law(0.0), "")
    assert checked(law(1.0), found)[0].source == "ice"


def test_units_of_the_windows_count() -> None:
    found = ice()
    assert found is not None
    noise = law(0.0, power=(9.0,) * POINTS)
    assert checked_in_ice(noise, found, scale=3.0, pixel_size_angstrom=PIXEL) == (noise, "")


def test_a_doubtful_law_is_trusted_where_the_places_confirm_it() -> None:
    doubtful = law(0.0, uncertainty_db=0.9, problem=unsure(0.9))
    noise, remark = checked(doubtful, ice())
    assert noise.trusted
    assert noise.uncertainty_db is not None
    assert noise.uncertainty_db <= 0.5
    assert noise.power == doubtful.power
    assert not remark


def test_a_doubtful_law_is_trusted_where_the_places_correct_it() -> None:
    noise, remark = checked(law(1.0, uncertainty_db=0.9, problem=unsure(0.9)), ice())
    assert noise.trusted
    assert remark
    assert np.abs(at_distances(noise)).max() < 0.35


def test_what_has_another_fault_stays_refused() -> None:
    problem = "its spectrum is 2 dB above the noise where hardly any signal can be"
    for wrong in (0.0, 1.0):
        assert checked(law(wrong, problem=problem), ice())[0].problem == problem
        assert checked(law(wrong, problem=problem, uncertainty_db=0.9), ice())[0].problem == problem
    nowhere = law(0.0, uncertainty_db=None, problem="nowhere the noise alone")
    assert checked(nowhere, ice()) == (nowhere, "")


def test_a_correction_that_is_known_badly_is_not_trusted() -> None:
    found = ice()
    assert found is not None
    wide = dataclasses.replace(found, least=found.least / 2, most=found.most)
    noise, _ = checked(law(2.0), wide)
    assert "places without particles contradict" in noise.problem
