"""What both halves have masked tells nothing about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoplug.core.correlation import high_correlation, low_correlations, sample_image, without_blank_areas
from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.errors import PairingError
from cryoplug.inputs.pair_proof import PairProof

SIDE = 512
Y, X = np.mgrid[:SIDE, :SIDE]
MASKS = {
    "outside of a disc": (Y - 256) ** 2 + (X - 256) ** 2 > 150**2,
    "one half": X > 300,
    "a frame": (np.minimum(Y, X) < 70) | (np.maximum(Y, X) > 440),
    "nothing": np.zeros((SIDE, SIDE), bool),
}


def exposure(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    waves = np.fft.rfft2(rng.normal(size=(SIDE, SIDE)))
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    signal = np.fft.irfft2(waves * np.exp(-((frequency / 0.03) ** 2)))
    signal *= 0.5 / signal.std()
    one, two = (10 + signal + rng.normal(size=signal.shape) for _ in range(2))
    return one.astype(np.float32), two.astype(np.float32)


def source(pixels: np.ndarray, name: str) -> ArrayMicrograph:
    return ArrayMicrograph(pixels, Path(name))


def masked(pixels: np.ndarray, mask: str, value: float) -> np.ndarray:
    return np.where(MASKS[mask], np.float32(value), pixels)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("value", [0.0, 10.0])
def test_halves_under_one_mask_are_proven_and_other_exposures_refused(mask: str, value: float) -> None:
    proof = PairProof(halves=True, accept_unproven=False)
    pairs = [tuple(masked(half, mask, value) for half in exposure(seed)) for seed in range(3)]
    for index, (one, two) in enumerate(pairs):
        remarks = proof.check_pixels(source(one, f"m{index}_EVN"), source(two, f"m{index}_ODD"))
        assert not any("fixed pattern" in text for text in remarks)
        assert any("a mask" in text for text in remarks) is (mask != "nothing")
    with pytest.raises(PairingError, match="do not belong together"):
        proof.check_pixels(source(pairs[0][0], "m0_EVN"), source(pairs[1][1], "m1_ODD"))


@pytest.mark.parametrize("mask", [name for name in MASKS if name != "nothing"])
def test_no_correlation_is_left_of_a_mask_alone(mask: str) -> None:
    one, two = (sample_image(source(masked(exposure(seed)[0], mask, 0), "m")) for seed in (5, 6))
    filled = without_blank_areas(one, two)
    assert all(abs(band.significance) < 4 for band in low_correlations(*filled))
    high = high_correlation(*filled)
    assert high is None or abs(high.value) < 0.03


def test_counted_electrons_are_no_mask() -> None:
    rng = np.random.default_rng(0)
    one, two = (sample_image(source(rng.poisson(0.1, (SIDE, SIDE)).astype(np.float32), "m")) for _ in range(2))
    assert without_blank_areas(one, two) == (one, two) or not one.blank.any()


def test_blocks_are_found_whatever_the_bands() -> None:
    image = np.random.default_rng(1).normal(size=(300, 70000 // 8)).astype(np.float32)
    image[32:64, 160:320] = 7
    blank = sample_image(source(image, "m")).blank
    expected = np.zeros_like(blank)
    expected[2:4, 10:20] = True
    np.testing.assert_array_equal(blank, expected)
