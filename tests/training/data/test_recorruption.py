"""Laws of drawn noise: independent to third order of the noise that is there, and the same whenever it is asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cryoplug.core.fourier_crop import resample_image
from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.metrics.micrograph_noise import MicrographNoise
from cryoplug.metrics.noise_power import LAW_FREQUENCY, NoiseLaw
from cryoplug.metrics.noise_shape import NoiseShape
from cryoplug.training.data.recorruption import Recorruption

CPU = torch.device("cpu")
COUNTS = 5.0


def noise_of(power: np.ndarray | float, shape: NoiseShape, *, part: float = 1.0, scale: float = 1.0) -> MicrographNoise:
    law = NoiseLaw(np.broadcast_to(power, LAW_FREQUENCY.shape), "spectrum", 0.0)
    return MicrographNoise.of(law, part=part, scale=scale, shape=shape)


def recorruption(*noises: MicrographNoise, share: float = 0.5, images: int = 16, seed: int = 1) -> Recorruption:
    return Recorruption(share, noises, np.arange(images) % len(noises), seed=seed, device=CPU)


def crops_of(image: np.ndarray, side: int = 256) -> torch.Tensor:
    rows = image.shape[0] // side
    cut = image.reshape(rows, side, rows, side).transpose(0, 2, 1, 3).reshape(-1, 1, side, side)
    return torch.from_numpy(np.ascontiguousarray(cut, np.float32))


def mixtures(made: Recorruption, crops: torch.Tensor, number: int | None = 1) -> tuple[torch.Tensor, torch.Tensor]:
    made.prepare(number, shape=crops.shape, images=range(len(crops)))
    inputs, targets = made.mix(crops, crops)
    return inputs.double(), targets.double()


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_noise_of_input_and_target_is_uncorrelated_at_every_distance(share: float) -> None:
    rng = np.random.default_rng(1)
    power = np.exp(-((LAW_FREQUENCY / 0.3) ** 2)) + 0.2
    frequency = np.hypot(np.fft.fftfreq(768)[:, None], np.fft.rfftfreq(768)[None])
    gain = np.sqrt(np.interp(frequency, LAW_FREQUENCY, power))
    image = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((768, 768))) * gain, s=(768, 768))
    crops = crops_of(image)
    made = recorruption(noise_of(power, NoiseShape(0.0, 0.0)), share=share)
    inputs, targets = mixtures(made, crops)
    variance = float((inputs**2).mean())
    assert variance == pytest.approx((image.var() * (1 + share**2)) / (1 + share**2 * image.var()), rel=0.02)
    assert float((targets**2).mean()) == pytest.approx(variance / share**2, rel=0.02)
    for shift in (0, 1, 2, 5):
        product = inputs[..., shift:] * targets[..., : 256 - shift or None]
        assert abs(float(product.mean())) < 0.03 * variance / share


@pytest.mark.parametrize("cropped", [False, True])
def test_drawn_noise_is_as_skewed_as_counts_ask_for(cropped: bool) -> None:
    side = 768
    grid = 2 * side if cropped else side
    counts = np.random.default_rng(2).poisson(COUNTS, (grid, grid))
    image = resample_image(counts, (side, side)).astype(np.float64)
    normal = (image - image.mean()) / image.std()
    part = 0.5 if cropped else 1.0
    shape = NoiseShape(1 / math.sqrt(COUNTS * (4 / 1.5**2 if cropped else 1)), 0.0, 1.5 if cropped else 1.0)
    crops = crops_of(normal)

    def third(noise: MicrographNoise) -> float:
        found = []
        for number in range(1, 5):
            inputs, targets = mixtures(recorruption(noise), crops, number)
            found.append(float((inputs**2 * targets).mean()))
        return float(np.mean(found))

    right = noise_of(COUNTS, shape, part=part, scale=float(image.std()))
    plain = noise_of(COUNTS, NoiseShape(0.0, 0.0), part=part, scale=float(image.std()))
    assert third(plain) > 0.05  # what a network would learn sooner than the signal
    assert abs(third(right)) < 0.15 * third(plain)


def test_drawn_noise_follows_the_local_mean_as_counts_do() -> None:
    rng = np.random.default_rng(3)
    relief = gaussian_blur(rng.standard_normal((768, 768)), 24)
    expected = 40 * (1 + 0.2 * relief / relief.std())
    image = rng.poisson(expected).astype(np.float64)
    mean, scale = image.mean(), image.std()
    crops, signal = crops_of((image - mean) / scale), crops_of((expected - mean) / scale)

    def third(slope: float) -> float:
        made = recorruption(noise_of(mean, NoiseShape(0.0, slope), scale=float(scale)))
        inputs, targets = mixtures(made, crops)
        doubled = signal.repeat_interleave(2, dim=0).double()
        noises = [
            part - part.mean() - doubled * (doubled * part).mean() / (doubled**2).mean() for part in (inputs, targets)
        ]
        return float((doubled * noises[0] * noises[1]).mean())

    assert abs(third(scale / mean)) < 0.1 * abs(third(0.0))


def test_the_two_mixtures_of_a_crop_have_nearly_opposite_noise() -> None:
    crops = torch.zeros(4, 1, 64, 64)
    inputs, _ = mixtures(recorruption(noise_of(1.0, NoiseShape(0.15, 0.0))), crops)
    correlation = float((inputs[0::2] * inputs[1::2]).mean() / (inputs**2).mean())
    assert correlation < -0.85


def test_noise_is_a_function_of_seed_and_step_and_in_validation_of_the_batch_alone() -> None:
    crops = torch.randn(3, 1, 48, 40)
    made = recorruption(noise_of(1.0, NoiseShape(0.1, 0.05, 1.5)))

    def inputs(number: int | None, seed: int = 1, part: int = 0) -> torch.Tensor:
        fresh = recorruption(noise_of(1.0, NoiseShape(0.1, 0.05, 1.5)), seed=seed)
        fresh.prepare(number, shape=crops.shape, images=(0, 1, 2), part=part)
        return fresh.mix(crops, crops)[0]

    made.prepare(8, shape=crops.shape, images=(0, 1, 2))
    made.prepare(7, shape=crops.shape, images=(0, 1, 2))
    assert torch.equal(made.mix(crops, crops)[0], inputs(7))
    assert torch.equal(inputs(None, part=2), inputs(None, part=2))
    others = [inputs(8), inputs(None), inputs(7, seed=2), inputs(None, part=1)]
    assert not any(torch.equal(inputs(7), other) for other in others)


def test_each_crop_gets_the_noise_of_its_own_micrograph() -> None:
    quiet, loud = noise_of(0.25, NoiseShape(0.0, 0.0)), noise_of(4.0, NoiseShape(0.0, 0.0))
    crops = torch.zeros(4, 1, 128, 128)
    _, targets = mixtures(recorruption(quiet, loud), crops)
    spread = targets.std(dim=(1, 2, 3))[::2]
    assert (spread[1::2] / spread[0::2]).tolist() == pytest.approx([4.0, 4.0], rel=0.05)
