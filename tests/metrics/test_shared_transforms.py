"""What evaluate shares and does in single precision changes no figure; and it does each transform once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cryoplug.metrics import rings as rings_module
from cryoplug.metrics import transformed as transformed_module
from cryoplug.metrics import transforms
from cryoplug.metrics.baselines import gaussian_blur
from cryoplug.metrics.halves import HalfImages, RingPowers, halves_moments, ring_moments, ring_moments_of
from cryoplug.metrics.judging import Images, Judgement, judge
from cryoplug.metrics.linear import AffineBlur
from cryoplug.metrics.rings import Rings, spectrum
from cryoplug.metrics.structure import ssim
from cryoplug.metrics.sums import mean_square_difference, means_and_covariances

SHAPE = (384, 333)
RNG = np.random.default_rng(11)
TRUTH = (20 * gaussian_blur(RNG.standard_normal(SHAPE), 3) + 7000).astype(np.float32)
"""As after dose weighting: a mean that is a thousand times the deviation."""
EVEN, ODD = (TRUTH + 9 * RNG.standard_normal(SHAPE).astype(np.float32) for _ in range(2))


def denoise(image: np.ndarray) -> np.ndarray:
    return gaussian_blur(image, 1.7)


def by_halves() -> Judgement:
    images = Images(even=EVEN, odd=ODD, denoised_even=denoise(EVEN), denoised_odd=denoise(ODD))
    return judge(images, denoise=denoise)


def by_truth() -> Judgement:
    noisy = 0.5 * (EVEN + ODD)
    return judge(Images(noisy=noisy, clean=TRUTH, denoised=denoise(noisy)), denoise=denoise)


def figures(found: Judgement) -> dict[str, float]:
    report = found.halves or found.truth
    assert report is not None and found.hallucination is not None
    scores = {**report.scores, **{f"noise, {name}": item for name, item in found.hallucination.items()}}
    return {f"{name}: {figure}": value for name, score in scores.items() for figure, value in vars(score).items()}


@pytest.mark.parametrize("judged", [by_halves, by_truth])
def test_single_precision_changes_no_figure(judged: Callable[[], Judgement], monkeypatch: pytest.MonkeyPatch) -> None:
    double = figures(judged())
    monkeypatch.setattr(transforms, "LARGE_PIXELS", 0)
    single = figures(judged())
    assert single != double
    assert single.keys() == double.keys()
    for name, value in double.items():
        tolerance = 1e-4 if name.endswith("_db") else 1e-4 * max(abs(value), 1.0)
        assert single[name] == pytest.approx(value, abs=tolerance, nan_ok=True), name


@pytest.mark.parametrize(("judged", "most"), [(by_halves, 24), (by_truth, 13)])
def test_no_transform_is_done_twice(
    judged: Callable[[], Judgement], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []

    def counted(pixels: np.ndarray) -> np.ndarray:
        seen.append(pixels.tobytes())
        return transforms.forward(pixels)

    monkeypatch.setattr(rings_module, "forward", counted)
    monkeypatch.setattr(transformed_module, "forward", counted)
    judged()
    assert len(seen) == len(set(seen)) <= most


@pytest.mark.parametrize("factor", [1.0, 0.4, -2.0])
def test_moments_of_a_multiple_of_the_raw_half_need_no_measuring(factor: float) -> None:
    rings, (even, odd) = Rings.of(SHAPE), (EVEN.astype(np.float64), ODD.astype(np.float64))
    powers = RingPowers.of(spectrum(even, taper=True), spectrum(odd, taper=True), rings)
    found = powers.of_identity().scaled(factor)
    wanted = ring_moments(HalfImages(even, odd, factor * even, factor * odd), rings)
    for name, value in vars(wanted).items():
        assert np.allclose(getattr(found, name), value, rtol=1e-9), name
    assert np.isnan(found.without_other().bias).all() and np.array_equal(found.without_other().error, found.error)


def test_the_other_direction_is_measured_from_the_same_spectra() -> None:
    even, odd, made = (spectrum(image, taper=True) for image in (EVEN, ODD, denoise(ODD)))
    powers = RingPowers.of(even, odd, Rings.of(SHAPE))
    found = ring_moments_of(powers.turned, odd, even, made, None)
    wanted = ring_moments(HalfImages(ODD, EVEN, denoise(ODD)), powers.rings)
    assert all(np.allclose(getattr(found, name), value, equal_nan=True) for name, value in vars(wanted).items())


@pytest.mark.parametrize("sigma", [1.5, 3.0, 10.6, 12.0])
def test_a_blur_by_the_shared_transform_is_the_gaussian_blur(sigma: float) -> None:
    found = AffineBlur(sigma, 2.0, 5.0)(EVEN)
    assert found.dtype == np.float32
    assert np.allclose(found, 2 * gaussian_blur(EVEN, sigma).astype(np.float64) + 5, rtol=1e-6)


def test_ssim_in_tiles_is_that_of_the_whole_image() -> None:
    kernel = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    kernel /= kernel.sum()

    def blurred(image: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(image, (11, 11))
        return np.einsum("yxij,i,j->yx", windows, kernel, kernel, optimize=True)

    x, y = (image[:131, :77].astype(np.float64) for image in (EVEN, TRUTH))
    offset = y.mean()
    x, y = x - offset, y - offset
    mean_x, mean_y = blurred(x), blurred(y)
    spread = blurred(x * x) - mean_x**2 + blurred(y * y) - mean_y**2
    common = 2 * (blurred(x * y) - mean_x * mean_y)
    mean_x, mean_y = mean_x + offset, mean_y + offset
    c1, c2 = (0.01 * 50) ** 2, (0.03 * 50) ** 2
    light = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    wanted = (light * (common + c2) / (spread + c2)).mean()
    assert ssim(EVEN[:131, :77], TRUTH[:131, :77], data_range=50) == pytest.approx(wanted, rel=1e-9)


def test_sums_in_bands_are_those_of_the_whole_image() -> None:
    one, two = EVEN.astype(np.float64), ODD.astype(np.float64)
    means, covariances = means_and_covariances(EVEN, ODD[::1])
    assert means == pytest.approx([one.mean(), two.mean()])
    assert np.allclose(covariances, np.cov(one.ravel(), two.ravel(), bias=True), rtol=1e-10)
    assert mean_square_difference(EVEN, ODD) == pytest.approx(np.mean((one - two) ** 2), rel=1e-12)
    assert mean_square_difference(EVEN, EVEN) == 0
    assert halves_moments(HalfImages(EVEN.T, ODD.T, EVEN.T)).signal == pytest.approx(covariances[0, 1])
