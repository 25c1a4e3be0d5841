"""Low- and high-pass filters with a Gaussian edge: half of the amplitude passes at the resolution that is named.

A Gaussian of two dimensions is one along y times one along x, so each axis is filtered on its own, in blocks. The image is
continued by its mirror image: a periodic one would carry the left border into the right one, as far as the filter reaches.
"""

from __future__ import annotations

import math

import numpy as np

from cryoplug.core.micrograph import ImageF32

REACH = 0.75
"""Of the resolution: 4 standard deviations of the Gaussian in real space; so far the image is continued."""
_BLOCK_PIXELS = 1 << 20
"""Pixels that are transformed at a time, in float64."""


def gaussian_transfer(size: int, resolution_px: float) -> np.ndarray:
    """Give what a low-pass does to the waves of a real transform of `size` samples.

    Parameters
    ----------
    size
        Samples of the axis, those beyond the border included.
    resolution_px
        Length in pixels of the wave of which half passes.

    Returns
    -------
    ndarray
        ``exp(-ln 2 (f resolution)^2)`` for f in cycles per pixel, in (0, 1]; the mean passes.
    """
    return np.exp(-math.log(2) * (np.fft.rfftfreq(size) * resolution_px) ** 2)


def continuation(size: int, resolution_px: float) -> tuple[np.ndarray, int]:
    """Give the sample that stands at each place of the axis and beyond its border, and how many lie beyond it on each side."""
    width = math.ceil(REACH * resolution_px)
    return np.pad(np.arange(size), width, mode="reflect"), width


def lowpass(pixels: np.ndarray, resolution_px: float) -> ImageF32:
    """Remove from an image ``(y, x)`` what is finer than a resolution in pixels; the mean stays to the weight of the border."""
    return _filtered(_filtered(np.asarray(pixels, np.float32), resolution_px).T, resolution_px).T.copy()


def filtered_image(
    pixels: np.ndarray, *, pixel_size_angstrom: float, highpass: float | None, lowpass_angstrom: float | None
) -> ImageF32:
    """Keep of an image what lies between two resolutions.

    Parameters
    ----------
    pixels
        ``(y, x)``.
    pixel_size_angstrom
        Its sampling.
    highpass
        What is larger than this many angstrom is removed, except for the mean; None: nothing.
    lowpass_angstrom
        What is finer than this many angstrom is removed; None: nothing.

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
