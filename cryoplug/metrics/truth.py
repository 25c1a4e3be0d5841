"""How good an image is if its truth is known, as in a simulation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryoplug.metrics.pixel import Image, correlation, mse, psnr
from cryoplug.metrics.rings import Curve, Rings, crossing, ring_correlation
from cryoplug.metrics.structure import ssim
from cryoplug.metrics.transformed import Transformed

THRESHOLDS = (0.5, 0.143)
"""Thresholds of the Fourier ring correlation; the resolution is where it falls below one of them."""


@dataclass(frozen=True)
class TruthScore:
    """An image compared with its truth."""

    mse: float
    """Mean squared error of the image as it is, in the square of its unit."""
    psnr_db: float
    """``10 log10(psnr_range^2 / mse)``."""
    psnr_range: float
    """The truth's maximum minus its minimum; also the range in `ssim`."""
    ssim: float
    """Mean structural similarity, at most 1; NaN if a side is below 11 pixels."""
    correlation: float
    """Pearson's correlation, in [-1, 1]; NaN for a constant image."""
    snr_db: float
    """Variance of the truth over the mean squared error of the best ``a * image + b``, in dB: ``-10 log10(1 - r^2)`` with the
    correlation r; 0 for an image that has nothing in common with the truth."""
    frc_05: float
    """Frequency, in cycles per pixel, where the FRC with the truth first falls below 0.5; NaN if it never does."""
    frc_0143: float
    """The same for 0.143."""


def score_truth(image: Image, truth: Image) -> TruthScore:
    """Compare an image with its truth; both ``(y, x)``, equal shape, the truth not constant."""
    judge = TruthJudge(Transformed(truth))
    return judge.score(image, judge.frc(Transformed(image)))


def truth_frc(image: Image, truth: Image) -> tuple[Curve, Curve]:
    """Return frequencies (cycles per pixel, to 0.5, without 0) and the Fourier ring correlation of image and truth."""
    judge = TruthJudge(Transformed(truth))
    return judge.frequency, judge.frc(Transformed(image))


class TruthJudge:
    """Compares images with their truth, which is transformed once.

    Parameters
    ----------
    truth
        The truth, not constant.
    """

    def __init__(self, truth: Transformed) -> None:
        self._truth = truth
        self._range = float(np.max(truth.image)) - float(np.min(truth.image))
        self._rings = Rings.of(truth.shape)
        self._power = self._rings.cross(truth.tapered, truth.tapered)
        self.frequency = self._rings.frequency[self._rings.to_nyquist]
        """Frequencies of `frc`, in cycles per pixel, to 0.5, without 0."""

    def frc(self, image: Transformed) -> Curve:
        """Return the Fourier ring correlation of image and truth."""
        one, two, rings = image.tapered, self._truth.tapered, self._rings
        return ring_correlation(rings.cross(one, two), rings.cross(one, one), self._power)[rings.to_nyquist]

    def score(self, image: Image, frc: Curve) -> TruthScore:
        """Compare an image, of which the `frc` is known, with the truth."""
        truth = self._truth.image
        constant = float(np.max(image)) == float(np.min(image))
        similar = correlation(image, truth) if not constant else float("nan")
        return TruthScore(
            mse=mse(image, truth),
            psnr_db=psnr(image, truth, data_range=self._range),
            psnr_range=self._range,
            ssim=ssim(image, truth, data_range=self._range) if min(image.shape) >= 11 else float("nan"),
            correlation=similar,
            snr_db=fitted_snr_db(similar),
            frc_05=crossing(self.frequency, frc, THRESHOLDS[0]),
            frc_0143=crossing(self.frequency, frc, THRESHOLDS[1]),
        )


def fitted_snr_db(correlation_with_truth: float) -> float:
    """Return the signal-to-noise ratio after the best ``a*x + b``, from the correlation; decibel, 0 or more.

    The best fit of the truth by ``a * image + b`` leaves ``1 - r^2`` of the truth's variance as error.
    """
    rest = 1 - correlation_with_truth**2
    return float(-10 * np.log10(rest)) if rest > 0 else float("nan" if np.isnan(rest) else "inf")
