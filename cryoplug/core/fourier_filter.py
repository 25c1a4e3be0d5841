"""Low- and high-pass filters with a Gaussian edge: at the resolution that is given, half of the amplitude passes.

A Gaussian in two dimensions is one along y times one along x, so each axis is filtered by itself, in blocks. Beyond its
border the image is continued by its mirror image. Without that, the filter would mix opposite borders, because the
transform is periodic.
"""

from __future__ import annotations

import math

import numpy as np

from cryoplug.core.micrograph import ImageF32

REACH = 0.75
"""How far the image is continued, in units of the resolution: 4 standard deviations of the Gaussian in real space."""
_BLOCK_PIXELS = 1 << 20
"""Pixels to transform at a time, in float64."""


def gaussian_transfer(size: int, resolution_px: float) -> np.ndarray:
    """Give the factor of a low-pass for each term of a real Fourier transform of `size` samples.

    Parameters
    ----------
    size
        Samples of the axis, including those beyond the border.
    resolution_px
        Wavelength in pixels at which half of the amplitude passes.

    Returns
    -------
    ndarray
        ``exp(-ln 2 (f resolution)^2)`` for f in cycles per pixel, in (0, 1]; the mean passes.
    """
    return np.exp(-math.log(2) * (np.fft.rfftfreq(size) * resolution_px) ** 2)


def continuation(size: int, resolution_px: float) -> tuple[np.ndarray, int]:
    """Give the index of the sample for each place on the axis and beyond its border, and how many lie beyond each border."""
    width = math.ceil(REACH * resolution_px)
    return np.pad(np.arange(size), width, mode="reflect"), width


def lowpass(pixels: np.ndarray, resolution_px: float) -> ImageF32:
    """Remove detail finer than a resolution (in pixels) from an image ``(y, x)``; the mean changes only by border effects."""
    return _filtered(_filtered(np.asarray(pixels, np.float32), resolution_px).T, resolution_px).T.copy()


def filtered_image(
    pixels: np.ndarray, *, pixel_size_angstrom: float, highpass: float | None, lowpass_angstrom: float | None
) -> ImageF32:
    """Keep the part of an image between two resolutions.

    Parameters
    ----------
    pixels
        ``(y, x)``.
    pixel_size_angstrom
        Its sampling.
    highpass
        Remove everything larger than this, in angstrom, except for the mean; None removes nothing.
    lowpass_angstrom
        Remove everything finer than this, in angstrom; None removes nothing.

    Returns
    -------
    ImageF32
        New array with the mean of `pixels`.
    """
    result = np.array(pixels, np.float32)
    mean = float(result.mean(dtype=np.float64))
    if highpass is not None:
        result -= lowpass(result, highpass / pixel_size_angstrom)
    if lowpass_angstrom is not None:
        result = lowpass(result, lowpass_angstrom / pixel_size_angstrom)
    result += np.float32(mean - float(result.mean(dtype=np.float64)))
    return result


def _filtered(pixels: np.ndarray, resolution_px: float) -> ImageF32:
    """Low-pass along the second axis."""
    size = pixels.shape[1]
    places, width = continuation(size, resolution_px)
    transfer = gaussian_transfer(len(places), resolution_px)
    result = np.empty(pixels.shape, np.float32)
    step = max(1, _BLOCK_PIXELS // len(places))
    for start in range(0, len(pixels), step):
        rows = slice(start, start + step)
        terms = np.fft.rfft(pixels[rows][:, places].astype(np.float64), axis=1)
        terms *= transfer
        result[rows] = np.fft.irfft(terms, n=len(places), axis=1)[:, width : width + size]
    return result
