"""Power spectra of pages: white noise is flat, a wave lies on its ring."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cryoplug.core.fourier_crop import resample_image
from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.reports.spectra import power_spectrum, ring_radii, spectrum_chart, split_spectrum

RNG = np.random.default_rng(3)


def source(image: np.ndarray) -> ArrayMicrograph:
    return ArrayMicrograph(image.astype(np.float32), Path("a.mrc"))


def test_white_noise_is_flat() -> None:
    spectrum = power_spectrum(source(RNG.normal(size=(600, 700))), 1.0)
    assert spectrum is not None
    _, power = spectrum.rings()
    assert np.std(power[20:]) < 0.1 * np.mean(power[20:])


@pytest.mark.parametrize(("frequency", "axis"), [(0.1, 0), (0.25, 1), (0.4, 0)])
def test_a_wave_lies_on_its_ring_and_is_mirrored(frequency: float, axis: int) -> None:
    phase = 2 * np.pi * frequency * np.arange(512)
    spectrum = power_spectrum(
        source(np.cos(phase)[:, None] * np.ones((1, 512)) if axis == 0 else np.cos(phase)[None] * np.ones((512, 1))),
        2.0,
    )
    assert spectrum is not None
    frequencies, power = spectrum.rings()
    assert frequencies[np.argmax(power)] == pytest.approx(frequency, abs=0.004)
    half = spectrum.power[1:, 1:]
    np.testing.assert_allclose(half, half[::-1, ::-1], rtol=1e-6, atol=1e-6 * half.max())


def test_rings_lie_where_their_resolution_is() -> None:
    spectrum = power_spectrum(source(RNG.normal(size=(256, 256))), 1.5)
    assert spectrum is not None
    for radius, label in ring_radii(spectrum):
        assert radius == pytest.approx(1.5 / float(label.split()[0]))
        assert 0 < radius <= 0.5
    unknown = power_spectrum(source(RNG.normal(size=(256, 256))), None)
    assert unknown is not None
    assert "cycles/px" in ring_radii(unknown)[0][1]
    assert split_spectrum(spectrum, unknown)[:2] == b"\xff\xd8"
    assert "cycles per pixel" in spectrum_chart(spectrum, unknown)


@pytest.mark.parametrize("coarser", [256, 228, 100])
def test_a_coarser_grid_has_the_same_power_at_the_same_frequencies_and_nothing_beyond(coarser: int) -> None:
    image = RNG.normal(size=(512, 512)).astype(np.float32)
    fine, times = power_spectrum(source(image), 1.5), 512 / coarser
    coarse = power_spectrum(source(resample_image(image, (coarser, coarser))), 1.5 * times)
    assert fine is not None and coarse is not None
    # The outermost rings of the coarse grid lose power to the window; frequency 0 has none in either.
    powers = [
        np.interp(np.linspace(0.02, 0.28, 20) / times, frequencies / (spectrum.pixel_size_angstrom or 0) * 1.5, power)
        for spectrum in (fine, coarse)
        for frequencies, power in (spectrum.rings(),)
    ]
    assert float(np.mean(powers[1])) == pytest.approx(float(np.mean(powers[0])), rel=0.1)
    split = np.asarray(Image.open(io.BytesIO(split_spectrum(fine, coarse))), np.float64)
    left, right = split[:, 255::-1], split[:, 256:]
    inner, outer = slice(None, int(200 / times)), slice(int(270 / times), None)
    middle = slice(256 - int(80 / times), 256 + int(80 / times))
    assert right[middle, inner].mean() == pytest.approx(left[middle, inner].mean(), rel=0.05)
    assert right[middle, outer].mean() < 5 < left[middle, outer].mean()


def test_an_image_too_small_has_no_spectrum() -> None:
    assert power_spectrum(source(RNG.normal(size=(31, 900))), 1.0) is None


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_image_is_drawn_all_the_same(value: float) -> None:
    spectrum = power_spectrum(source(np.full((128, 128), value)), 1.0)
    assert spectrum is not None
    split_spectrum(spectrum, spectrum)
    assert "no values" in spectrum_chart(spectrum, spectrum)
