"""The weights that are shipped still reach their figures, on seeded micrographs of molecules that they have not seen."""

from __future__ import annotations

import functools
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.normalization import fit_normalization
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.likeness import look
from cryoplug.metrics.linear import fit_baselines
from cryoplug.metrics.pixel import correlation
from cryoplug.metrics.truth import fitted_snr_db
from cryoplug.models import shipped
from cryoplug.models.checkpoint import load_checkpoint
from cryoplug.models.registry import UNET
from cryoplug.simulation.micrograph import SimulatedMicrograph, simulate_micrograph
from cryoplug.simulation.planes import FrequencyPlane
from cryoplug.simulation.settings import SimulationSettings
from cryoplug.simulation.texture import Spectrum, texture
from cryoplug.training.config import TrainConfig
from cryoplug.training.presets import with_recipe

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shipped.is_there(), reason="no weights in this tree")]


@functools.cache
def micrograph(pixel_size: float, particles: int | None = None) -> SimulatedMicrograph:
    return simulate_micrograph(
        SimulationSettings(
            size_px=768, pixel_size_angstrom=pixel_size, defocus_um=(1.5, 1.5), particles=particles, seed=4
        ),
        0,
    )


def denoised(image: np.ndarray, pixel_size: float, target: str) -> np.ndarray:
    return Denoiser.from_checkpoint("general", target=target, threads=2).denoise(image, pixel_size_angstrom=pixel_size)


def test_the_small_model_has_the_shape_that_the_recipe_for_halves_trains_from_nothing() -> None:
    asked = TrainConfig(model="unet")
    recipe = with_recipe(asked, "halves", pairs="halves", patch_shape=(256, 256), whole=None, on_gpu=True, given=())
    shapes = UNET.configured(recipe.model_options).weight_shapes()
    assert load_checkpoint(shipped.start_of("general")).spec.weight_shapes() == shapes


@pytest.mark.parametrize("pixel_size", [2.6, 4.0])
def test_the_image_of_the_small_model_is_better_than_the_best_gaussian(pixel_size: float) -> None:
    made = micrograph(pixel_size)
    image = Denoiser.from_checkpoint(shipped.start_of("general"), threads=2).denoise(
        made.noisy, pixel_size_angstrom=pixel_size
    )
    assert above_best_gaussian_db(image, made.noisy, made.clean) > 0.2


def above_best_gaussian_db(image: np.ndarray, noisy: np.ndarray, truth: np.ndarray) -> float:
    gaussian = fit_baselines(noisy, truth, judge_is_truth=True).filters["gaussian"](noisy)
    return fitted_snr_db(correlation(image, truth)) - fitted_snr_db(correlation(gaussian, truth))


@pytest.mark.parametrize("pixel_size", [1.3, 2.6, 4.0])
def test_the_image_is_better_than_the_best_gaussian_at_any_pixel_size(pixel_size: float) -> None:
    made = micrograph(pixel_size)
    image = denoised(made.noisy, pixel_size, "image")
    assert above_best_gaussian_db(image, made.noisy, made.clean) > 0.2
    assert abs(float(image.mean() - made.noisy.mean())) < 0.1 * made.noisy.std()


@pytest.mark.parametrize("pixel_size", [1.3, 2.6])
def test_the_particles_are_far_above_the_best_gaussian(pixel_size: float) -> None:
    made = micrograph(pixel_size)
    alone = denoised(made.noisy, pixel_size, "particles")
    assert above_best_gaussian_db(alone, made.noisy, made.particles_only) > 2.5


def test_of_ice_without_particles_less_than_a_hundredth_of_the_variance_comes_out() -> None:
    made = micrograph(1.3, particles=0)
    alone = denoised(made.noisy, 1.3, "particles")
    assert float(alone.var()) < 0.01 * float(made.noisy.var())


def test_an_ice_ball_and_hot_pixels_are_no_particles_and_leave_the_rest_as_it_was() -> None:
    made = micrograph(1.3)
    dirty = made.noisy.copy()
    y, x = np.ogrid[:768, :768]
    dirty[(y - 600) ** 2 + (x - 600) ** 2 < 100**2] *= 0.3
    dirty[100, 100] = dirty[333, 77] = 1e6
    far = (slice(0, 300), slice(0, 300))
    before, after = (denoised(image, 1.3, "particles")[far] for image in (made.noisy, dirty))
    assert correlation(before, after) > 0.98
    ball = denoised(dirty, 1.3, "particles")[540:660, 540:660]
    assert float(ball.std()) < float(before.std())


def scrambled(image: np.ndarray, seed: int = 6) -> np.ndarray:
    """Give Gaussian noise with the spectrum of an image."""
    white = np.fft.rfft2(np.random.default_rng(seed).standard_normal(image.shape))
    terms = np.abs(np.fft.rfft2(image - image.mean())) * white / np.abs(white)
    return (np.fft.irfft2(terms, image.shape) + image.mean()).astype(np.float32)


@pytest.mark.parametrize("pixel_size", [1.3, 2.6])
def test_noise_with_the_spectrum_of_particles_gives_no_particles(pixel_size: float) -> None:
    made = micrograph(pixel_size)
    noise = scrambled(made.noisy)
    came_out = float(denoised(made.noisy, pixel_size, "particles").var())
    assert float(denoised(noise, pixel_size, "particles").var()) < min(0.05 * came_out, 0.01 * float(noise.var()))


def fine_variance(image: np.ndarray, pixel_size: float, longest: float = 500.0) -> float:
    """Give the variance of what has periods below 500 angstrom."""
    rows, columns = np.fft.fftfreq(image.shape[0], pixel_size), np.fft.rfftfreq(image.shape[1], pixel_size)
    fine = np.hypot(rows[:, None], columns[None]) > 1 / longest
    return float(np.fft.irfft2(np.fft.rfft2(image) * fine, image.shape).var())


@pytest.mark.parametrize(("pixel_size", "seed"), [(0.75, 2), (1.06, 0)])
def test_noise_like_a_micrograph_full_of_ice_balls_gives_no_particles(
    shared_data: Path, pixel_size: float, seed: int
) -> None:
    balls = mrcfile.read(shared_data / "micrographs" / "Ucsf_stack_1142_DW.mrc").astype(np.float64)
    noise = scrambled(balls, seed)
    came_out = denoised(noise, pixel_size, "particles")
    assert fine_variance(came_out, pixel_size) < 0.01 * fine_variance(noise, pixel_size)


@pytest.mark.parametrize("slope", [2.0, 3.0])
def test_noise_that_rises_steeply_towards_low_frequencies_gives_no_particles(slope: float) -> None:
    plane = FrequencyPlane.of((512, 512), 2.6, "cpu")
    rising = texture(Spectrum(slope, longest_angstrom=500), plane, torch.Generator().manual_seed(7)).numpy()
    noise = (rising + np.random.default_rng(7).normal(0, 0.3, rising.shape)).astype(np.float32)
    assert float(denoised(100 + noise, 2.6, "particles").var()) < 0.01 * float(noise.var())


@pytest.mark.parametrize("height", [700, 384])
def test_bright_particles_are_told_and_dark_ones_are_not(height: int) -> None:
    made, checkpoint = micrograph(2.6).noisy[:height], load_checkpoint(shipped.GENERAL)

    def told(image: np.ndarray) -> str:
        source = ArrayMicrograph(image)
        return "".join(look(source, fit_normalization(source, checkpoint.normalize), checkpoint)[1])

    assert "contrast looks inverted" in told(made.max() - made)
    assert told(made) == ""


@pytest.mark.parametrize("target", ["image", "particles"])
def test_white_noise_gives_no_structure(target: str) -> None:
    noise = np.random.default_rng(5).normal(100, 10, (512, 512)).astype(np.float32)
    assert float(denoised(noise, 2.6, target).var()) < 0.01 * float(noise.var())
