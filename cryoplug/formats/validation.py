"""Check the pixels of a file of any format: every image in it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from cryoplug.core.micrograph import MicrographSource, MovieFrame, MovieSource
from cryoplug.core.results import Finding
from cryoplug.core.statistics import PixelStatistics, scan_pixels
from cryoplug.errors import CryoplugError
from cryoplug.formats.mrc_claims import DENOISED_ALREADY

_SHOWN = 5

Measure = Callable[[MicrographSource], PixelStatistics]
"""Reads all pixels of an image; who wants to know more from the same reading gives a validator a `Measure` of its own."""


def validate_by_reading(
    path: Path, open_movie: Callable[[Path], MovieSource], measure: Measure = scan_pixels
) -> list[Finding]:
    """List what is wrong or unusual about a file by opening it and reading all of it.

    Parameters
    ----------
    path
        The file.
    open_movie
        Opens it.
    measure
        Called with the image of a file that holds a single one.

    Returns
    -------
    list[Finding]
        An error if it cannot be read; the warnings of its reader; findings about the pixels of every image.
    """
    try:
        with open_movie(path) as movie:
            return header_findings(movie) + image_findings(movie, measure)
    except CryoplugError as error:
        return [_refusal(error, path)]


def header_findings(movie: MovieSource) -> list[Finding]:
    """List the warnings and notes of a movie's reader."""
    findings = [Finding("warning", "file", text) for text in movie.warnings if text != DENOISED_ALREADY]
    findings += [Finding("note", "file", text) for text in movie.notes]
    if movie.frame_count > 1:
        findings.append(Finding("note", "file", f"{movie.frame_count} images: a movie or stack"))
    return findings


def image_findings(movie: MovieSource, measure: Measure = scan_pixels) -> list[Finding]:
    """List what is wrong with the images of a movie, one finding for each kind of damage; for a single image, raise."""
    if movie.frame_count == 1:
        findings = pixel_findings(measure(MovieFrame(movie, 0)))
    else:
        findings = _many_images(movie)
    if not any(item.severity == "error" for item in findings):
        findings += [Finding("warning", "file", text) for text in movie.check_end()]
    return findings


def pixel_findings(statistics: PixelStatistics) -> list[Finding]:
    """List pixels that are not finite, an image without contrast, and hot pixels."""
    findings = []
    if statistics.nonfinite_count:
        message = (
            f"{statistics.nonfinite_count} of {statistics.count} are NaN or infinite, the first at "
            f"(y, x) = {statistics.first_nonfinite}; repair or re-export the micrograph"
        )
        findings.append(Finding("error", "pixels", message))
    if statistics.is_constant and statistics.nonfinite_count < statistics.count:
        message = f"all finite pixels are {statistics.minimum:g}; a micrograph needs contrast"
        findings.append(Finding("error", "pixels", message))
    elif statistics.maximum - statistics.mean > 50 * statistics.std:
        sigmas = (statistics.maximum - statistics.mean) / statistics.std
        message = f"maximum {statistics.maximum:g} lies {sigmas:.0f} standard deviations above the mean (hot pixels?)"
        findings.append(Finding("note", "pixels", message))
    return findings


def _many_images(movie: MovieSource) -> list[Finding]:
    damaged: list[int] = []
    nonfinite: list[int] = []
    constant: list[int] = []
    why = where = value = ""
    for index in range(movie.frame_count):
        try:
            pixels = movie.read_frame(index)
        except CryoplugError as error:
            damaged.append(index + 1)
            why = why or str(error).removeprefix(f"{movie.path}: ")
            if movie.is_stream:
                break
            continue
        low, high = float(pixels.min()), float(pixels.max())
        if not np.isfinite(low + high):
            bad = ~np.isfinite(pixels)
            y, x = divmod(int(np.argmax(bad)), pixels.shape[1])
            where = (
                where or f"{int(bad.sum())} of {bad.size} pixels of image {index + 1}, the first at (y, x) = ({y}, {x})"
            )
            nonfinite.append(index + 1)
        elif low == high:
            constant.append(index + 1)
            value = value or f"{low:g}"
    findings = []
    if damaged:
        found = f"{_images(damaged, movie.frame_count)} cannot be read"
        if movie.is_stream and damaged[-1] < movie.frame_count:
            found = f"image {damaged[0]} of {movie.frame_count} cannot be read, nor can those after it"
        findings.append(Finding("error", "pixels", f"{found}: {why}"))
    if nonfinite:
        message = f"NaN or infinite in {_images(nonfinite, movie.frame_count)} ({where}); repair or re-export the file"
        findings.append(Finding("error", "pixels", message))
    if len(constant) == movie.frame_count:
        findings.append(Finding("error", "pixels", f"all are {value}; there is no image in it"))
    elif constant:
        message = f"{_images(constant, movie.frame_count)} without contrast, all pixels {value}; leave that out"
        findings.append(Finding("warning", "pixels", message))
    return findings


def _images(numbers: list[int], count: int) -> str:
    shown = ", ".join(map(str, numbers[:_SHOWN])) + (f" and {len(numbers) - _SHOWN} more" if numbers[_SHOWN:] else "")
    return f"image{'s' * (len(numbers) > 1)} {shown} of {count}"


def _refusal(error: CryoplugError, path: Path) -> Finding:
    return Finding("error", "file", str(error).removeprefix(f"{path}: "))
