"""Change the pixel size of an image by cutting its Fourier transform, or padding it with zeros.

Grey values keep their scale: the mean stays, and so does every wave that both grids can hold. On an even grid the two
waves of the Nyquist frequency are one: cutting adds the two terms (as sampling the wave does), padding halves the
one. So padding and then cutting gives exactly the same image back. The transform is periodic: a step between opposite
borders rings, as stripes along both of them. `resample_open_axis` takes the step away first, and denoising uses that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from cryoplug.core.micrograph import ImageF32, MicrographSource, row_bands
from cryoplug.errors import UsageError

SAME_PIXEL_SIZE = 0.01
"""Relative difference below which two pixel sizes count as equal, so that nothing is resampled."""
_BLOCK_PIXELS = 1 << 20
"""Pixels to transform at a time, in float64: 8 MB, and as much again for the transform."""


def cropped_shape(shape: tuple[int, int], *, pixel_size_angstrom: float, target_angstrom: float) -> tuple[int, int]:
    """Return the grid whose pixel size is nearest to a target; `shape` itself if its pixels already have that size.

    Parameters
    ----------
    shape
        ``(y, x)``.
    pixel_size_angstrom
        Sampling of the image.
    target_angstrom
        Sampling that is wanted. Sides are whole numbers, so the new side is off by up to half a pixel: 0.05 % at
        1000 pixels.
    """
    for name, value in (("pixel size", pixel_size_angstrom), ("target", target_angstrom)):
        if not (np.isfinite(value) and value > 0):
            raise UsageError(f"{name} {value!r} angstrom; allowed: a finite number above 0")
    ratio = pixel_size_angstrom / target_angstrom
    if abs(ratio - 1) < SAME_PIXEL_SIZE:
        return shape
    return max(1, round(shape[0] * ratio)), max(1, round(shape[1] * ratio))


class Resample(Protocol):
    """A `resample_axis`: this one, or a faster one that gives the same numbers."""

    def __call__(self, pixels: np.ndarray, size: int, *, axis: int) -> ImageF32:
        """Cut or pad along one axis to `size` samples."""
        ...


def resample_axis(pixels: np.ndarray, size: int, *, axis: int) -> ImageF32:
    """Cut or pad along one axis to `size` samples; computed in float64."""
    if pixels.shape[axis] == size:
        return np.array(pixels, np.float32)
    return _resampled(pixels, size, axis).astype(np.float32)


def _resampled(pixels: np.ndarray, size: int, axis: int) -> np.ndarray:
    before = pixels.shape[axis]
    terms = np.moveaxis(np.fft.rfft(np.asarray(pixels, np.float64), axis=axis, norm="forward"), axis, -1)
    kept = np.zeros((*terms.shape[:-1], size // 2 + 1), terms.dtype)
    smaller = min(before, size)
    count = smaller // 2 + 1
    kept[..., :count] = terms[..., :count]
    if smaller % 2 == 0:
        # The Nyquist term of the smaller grid.
        if size < before:
            kept[..., -1] = 2.0 * kept[..., -1].real
        else:
            kept[..., count - 1] *= 0.5
    return np.fft.irfft(np.moveaxis(kept, -1, axis), n=size, axis=axis, norm="forward")


def resample_open_axis(pixels: np.ndarray, size: int, *, axis: int) -> ImageF32:
    """Do what `resample_axis` does, for lines whose ends do not meet, as those of a micrograph with a gradient.

    Before the transform, each line loses the slope that leads from one end to the other, and gets it back afterwards. Both are
    linear, so what is done is to add `ends_apart`, once for each line, times the difference of its ends. The mean stays.
    """
    before = pixels.shape[axis]
    if before == size:
        return np.array(pixels, np.float32)
    count = at_each_end(before, size)
    lines = np.moveaxis(np.asarray(pixels, np.float64), axis, -1)
    apart = lines[..., before - count :].mean(axis=-1) - lines[..., :count].mean(axis=-1)
    added = np.moveaxis(apart[..., None] * ends_apart(before, size), -1, axis)
    return (_resampled(pixels, size, axis) + added).astype(np.float32)


def at_each_end(before: int, size: int) -> int:
    """Give the number of pixels that count as an end: as many as become one."""
    return max(1, round(before / size))


@functools.cache
def ends_apart(before: int, size: int) -> np.ndarray:
    """Give what a slope that rises by one between the ends lacks after `resample_axis`; its mean is zero."""
    slope = np.arange(before) / before
    lacks = np.arange(size) / size - _resampled(slope, size, 0)
    # The middles of the ends are nearer to one another than the ends.
    longer = before / max(1, before - at_each_end(before, size))
    return np.asarray(longer * (lacks - lacks.mean()))


def resample_image(pixels: np.ndarray, shape: tuple[int, int], *, resample: Resample = resample_axis) -> ImageF32:
    """Bring an image ``(y, x)`` to another grid; each axis is cut or padded on its own, by `resample`.

    Returns
    -------
    ImageF32
        New array of `shape`.
    """
    along_x = np.concatenate([resample(rows, shape[1], axis=1) for rows in _row_blocks(pixels)])
    return _resample_columns(along_x, shape[0], resample)


def resample_source(
    source: MicrographSource,
    shape: tuple[int, int],
    seen: Callable[[int, ImageF32], None] = lambda row, rows: None,
    *,
    resample: Resample = resample_axis,
) -> ImageF32:
    """Read a micrograph band by band and bring it to another grid, in the memory of ``source.shape[0] * shape[1]`` pixels.

    Parameters
    ----------
    source
        The opened micrograph, all pixels finite.
    shape
        The new ``(y, x)``.
    seen
        Called with the number of the first row and the rows of each band that is read.
    resample
        Cuts or pads along one axis.
    """
    along_x = np.empty((source.shape[0], shape[1]), np.float32)
    for start, rows in row_bands(source):
        seen(start, rows)
        along_x[start : start + len(rows)] = resample(rows, shape[1], axis=1)
    return _resample_columns(along_x, shape[0], resample)


def resampled_rows(
    pixels: np.ndarray, shape: tuple[int, int], *, resample: Resample = resample_axis
) -> Iterator[ImageF32]:
    """Give the result of `resample_image` in bands of rows, from top to bottom, without holding all of it."""
    along_y = _resample_columns(pixels, shape[0], resample)
    for rows in _row_blocks(along_y, shape[1]):
        yield resample(rows, shape[1], axis=1)


def merge_high_resolution(
    denoised: np.ndarray, raw: np.ndarray, *, pixel_size_angstrom: float, resolution_angstrom: float
) -> ImageF32:
    """Combine two images: Fourier terms finer than a resolution from `raw`, the others from `denoised`.

    Parameters
    ----------
    denoised, raw
        ``(y, x)``, equal shape, the same grey scale.
    pixel_size_angstrom
        Sampling of both.
    resolution_angstrom
        Terms of `raw` are taken above the spatial frequency ``1 / resolution_angstrom``; the cut is sharp, and the same in
        all directions.
    """
    y = np.fft.fftfreq(raw.shape[0], pixel_size_angstrom)[:, None]
    x = np.fft.rfftfreq(raw.shape[1], pixel_size_angstrom)[None, :]
    terms = np.fft.rfft2(np.subtract(raw, denoised, dtype=np.float32))
    terms[y * y + x * x <= 1.0 / resolution_angstrom**2] = 0.0
    result = np.fft.irfft2(terms, s=raw.shape).astype(np.float32)
    result += np.asarray(denoised, np.float32)
    return result


def _resample_columns(pixels: np.ndarray, size: int, resample: Resample) -> ImageF32:
    result = np.empty((size, pixels.shape[1]), np.float32)
    step = max(1, _BLOCK_PIXELS // max(size, pixels.shape[0]))
    for start in range(0, pixels.shape[1], step):
        columns = slice(start, start + step)
        result[:, columns] = resample(pixels[:, columns], size, axis=0)
    return result


def _row_blocks(pixels: np.ndarray, width: int = 0) -> Iterator[np.ndarray]:
    step = max(1, _BLOCK_PIXELS // max(width, pixels.shape[1]))
    for start in range(0, pixels.shape[0], step):
        yield pixels[start : start + step]
