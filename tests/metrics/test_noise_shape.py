"""Laws of skewness and slope, which are those of counted electrons, cropped or not; and of their record in the manifest."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from cryoplug.core.fourier_crop import resample_image
from cryoplug.errors import FormatError
from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.metrics.micrograph_noise import MicrographNoise
from cryoplug.metrics.noise_power import LAW_FREQUENCY, POINTS, NoiseLaw
from cryoplug.metrics.noise_shape import NoiseShape, measure_shape

COUNTS = 6.0


def quarters(image: np.ndarray) -> list[np.ndarray]:
    half = image.shape[0] // 2
    return [image[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]


@pytest.mark.parametrize("oversampling", [1.0, 1.25, 1.5, 2.0])
def test_counts_are_as_skewed_as_poisson_says_before_and_after_a_crop(oversampling: float) -> None:
    side = round(512 * oversampling)
    counts = np.random.default_rng(1).poisson(COUNTS, (side, side))
    image = resample_image(counts, (512, 512)).astype(np.float64)
    power = np.full(POINTS, COUNTS / oversampling**2)
    found = measure_shape(quarters(image - COUNTS), power, cropped=oversampling > 1)
    fine = 1.5 if oversampling > 1 else 1.0
    assert found.oversampling == fine
    # A pixel of the finer grid collects so many counts.
    assert found.skewness == pytest.approx(1 / np.sqrt(COUNTS * (oversampling / fine) ** 2), rel=0.15)


def test_noise_that_grows_with_the_mean_is_seen_and_inverted_contrast_too() -> None:
    rng = np.random.default_rng(2)
    relief = gaussian_blur(rng.standard_normal((768, 768)), 20)
    mean = 30 * (1 + 0.2 * relief / relief.std())
    image = rng.poisson(np.maximum(mean, 1)).astype(np.float64)
    scale = image.std()
    power = np.full(POINTS, image.mean() / scale**2)
    normal = (image - image.mean()) / scale
    found = measure_shape(quarters(normal), power)
    assert found.slope == pytest.approx(scale / image.mean(), rel=0.15)
    inverted = measure_shape(quarters(-normal), power)
    assert inverted.slope == pytest.approx(-found.slope, rel=1e-6)
    assert inverted.skewness == pytest.approx(-found.skewness, rel=1e-6)


def test_gaussian_noise_has_neither_and_hot_pixels_do_not_make_it() -> None:
    image = np.random.default_rng(3).standard_normal((512, 512))
    image[100, 100] = 1e4
    found = measure_shape(quarters(image), np.ones(POINTS))
    assert abs(found.skewness) < 0.03
    assert abs(found.slope) < 0.1


def record(**changes: Any) -> dict[str, Any]:
    law = NoiseLaw(np.linspace(5, 2, len(LAW_FREQUENCY)), "spectrum", 0.12)
    return {**MicrographNoise.of(law, part=0.5, scale=2.0, shape=NoiseShape(0.1, 0.05, 1.5)).to_dict(), **changes}


def test_a_record_is_read_back_and_holds_the_power_of_the_cropped_normalised_grid() -> None:
    written = json.loads(json.dumps(record()))
    noise = MicrographNoise.from_dict(written)
    assert noise.to_dict() == written
    assert noise.trusted
    # Half as many pixels a side have a quarter of the white noise's variance; normalised by 2, a quarter again.
    assert noise.power[0] == pytest.approx(5 / 4 / 4)
    assert noise.power[64] == pytest.approx((5 + 2) / 2 / 4 / 4)  # 0.5 cycles per pixel is 0.25 before the crop
    image = np.random.default_rng(1).standard_normal((256, 256))
    gain = np.sqrt(
        np.interp(np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None]), np.arange(92) / 128, noise.power)
    )
    drawn = np.fft.irfft2(np.fft.rfft2(image) * gain, s=image.shape)
    assert noise.variance == pytest.approx(drawn.var(), rel=0.03)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"power": [1.0] * 91}, "power"),
        ({"power": [1.0] * 91 + [-1.0]}, "power"),
        ({"power": [1.0] * 91 + ["x"]}, "power"),
        ({"step": 0.5}, "power"),
        ({"source": "guess"}, "source"),
        ({"skewness": 40.0}, "skewness"),
        ({"slope": None}, "slope"),
        ({"oversampling": 0.5}, "oversampling"),
        ({"problem": None}, "problem"),
        ({"uncertainty_db": "much"}, "uncertainty_db"),
    ],
)
def test_a_damaged_record_is_refused_by_its_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        MicrographNoise.from_dict(record(**change))


def test_what_is_not_known_at_all_is_written_as_nothing() -> None:
    law = NoiseLaw(np.ones(len(LAW_FREQUENCY)), "spectrum", float("inf"), "filtered")
    noise = MicrographNoise.of(law, part=1, scale=1)
    written = json.loads(json.dumps(noise.to_dict(), allow_nan=False))
    assert written["uncertainty_db"] is None
    assert not MicrographNoise.from_dict(written).trusted
