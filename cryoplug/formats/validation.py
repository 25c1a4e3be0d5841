"""What is wrong with the pixels of a file, whatever its format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryoplug.core.micrograph import MovieSource
from cryoplug.core.results import Finding
from cryoplug.core.statistics import PixelStatistics, scan_pixels
from cryoplug.errors import CryoplugError


def validate_by_reading(path: Path, open_movie: Callable[[Path], MovieSource]) -> list[Finding]:
    """List what is wrong or unusual about a file by opening it and reading its first image.

    Parameters
    ----------
    path
        The file.
    open_movie
        Opens it.

    Returns
    -------
    list[Finding]
        An error when it cannot be read; its reader's warnings; findings about the pixels.
    """
    try:
        with open_movie(path) as movie:
            findings = [Finding("warning", "file", text) for text in movie.warnings]
            if movie.frame_count > 1:
                findings.append(Finding("note", "file", f"{movie.frame_count} images: a movie or stack"))
            return findings + pixel_findings(scan_pixels(movie.frame(0)))
    except CryoplugError as error:
        return [Finding("error", "file", str(error).removeprefix(f"{path}: "))]


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
