"""The camera: dose, modulation transfer, and the Poisson noise of counted electrons.

An electron-counting camera is assumed. Where an electron is counted is uncertain by about a pixel, and that blurs what
one expects to see (the MTF); but each count stays one count in one pixel, so the noise is white, whatever the MTF. The
detective quantum efficiency is therefore ``MTF(f)^2`` of the recorded dose, 1 at frequency 0: electrons that the camera
misses are taken as never sent. An integrating camera would blur the noise too; that, coincidence loss, gain errors and
dead pixels are not simulated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryoplug.simulation.specimen import FloatArray, frequencies


@dataclass(frozen=True)
class Detector:
    """A counting camera."""

    mtf_at_nyquist: float = 0.45
    """Modulation transfer at half a cycle per pixel; above 0, at most 0.6366, which a perfect square pixel has."""

    def modulation_transfer(self, frequency: FloatArray) -> FloatArray:
        """Return the MTF: the sinc of a square pixel times a Gaussian.

        Parameters
        ----------
        frequency
            Cycles per pixel, any shape, 0 or more.

        Returns
        -------
        ndarray
            1 at frequency 0, `mtf_at_nyquist` at 0.5.
        """
        fall = np.log(np.sinc(0.5) / self.mtf_at_nyquist) / 0.25
        return np.sinc(frequency) * np.exp(-fall * np.asarray(frequency) ** 2)


def expected_counts(
    intensity: FloatArray, detector: Detector, *, dose_e_per_angstrom2: float, pixel_size_angstrom: float
) -> FloatArray:
    """Return the noise-free exposure in counts per pixel.

    Parameters
    ----------
    intensity
        ``(y, x)``, any positive scale; only its ratio to its mean counts. The borders wrap around.
    detector
        Its MTF is applied.
    dose_e_per_angstrom2
        Electrons recorded per square angstrom, mean over the image.
    pixel_size_angstrom
        Sampling.

    Returns
    -------
    ndarray
        Mean ``dose * pixel area``; not below 0.
    """
    shape = (intensity.shape[0], intensity.shape[1])
    blurred = np.fft.irfft2(np.fft.rfft2(intensity) * detector.modulation_transfer(frequencies(shape, 1.0)), s=shape)
    return np.maximum(blurred * (dose_e_per_angstrom2 * pixel_size_angstrom**2 / blurred.mean()), 0)


def count_halves(
    expected: npt.NDArray[np.floating], rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Count electrons in two independent halves of one exposure.

    Each half is Poisson with half the expectation, so their sum is Poisson with all of it, and their noise is
    independent.

    Parameters
    ----------
    expected
        Counts per pixel of the whole exposure, 0 or more.
    rng
        Source of chance.

    Returns
    -------
    tuple of ndarray
        Even and odd, whole numbers in float32.
    """
    half = np.asarray(expected, np.float64) / 2
    return rng.poisson(half).astype(np.float32), rng.poisson(half).astype(np.float32)
