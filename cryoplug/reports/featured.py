"""The few micrographs whose pictures and spectra are inside the page of a run: how they are chosen and drawn."""

from __future__ import annotations

from collections.abc import Sequence

from cryoplug.core.micrograph import MicrographSource
from cryoplug.reports.denoise_page import DenoiseRow, Featured
from cryoplug.reports.spectra import power_spectrum, ring_radii, spectrum_chart, split_spectrum

MOST_FEATURED = 8
"""Most of these micrographs; their pictures take about 3 MB in a page."""


def choose_featured(rows: Sequence[DenoiseRow], most: int = MOST_FEATURED) -> list[int]:
    """Choose micrographs: up to two with a warning, those with least and most noise removed, and others evenly spread."""
    good = [index for index, row in enumerate(rows) if row.picture is not None]
    if len(good) <= most:
        return good
    chosen = [index for index in good if rows[index].is_problem][:2]
    measured = [index for index in good if rows[index].removed is not None]
    if measured:
        chosen += [pick(measured, key=lambda index: rows[index].removed or 0.0) for pick in (min, max)]
    chosen = list(dict.fromkeys(chosen))
    others = [index for index in good if index not in chosen]
    left = most - len(chosen)
    chosen += [others[round(place * (len(others) - 1) / max(1, left - 1))] for place in range(left)]
    return sorted(dict.fromkeys(chosen))


def feature(
    row: int,
    picture: bytes,
    raw: MicrographSource,
    denoised: MicrographSource,
    *,
    pixel_size_angstrom: float | None,
    written_angstrom: float | None,
) -> Featured:
    """Measure the spectra of a micrograph and draw them.

    Parameters
    ----------
    row
        Number of its row in the page.
    picture
        JPEG of its preview.
    raw, denoised
        The opened files.
    pixel_size_angstrom, written_angstrom
        Pixel sizes of `raw` and `denoised`; None if unknown.
    """
    before, after = power_spectrum(raw, pixel_size_angstrom), power_spectrum(denoised, written_angstrom)
    if before is None or after is None:
        return Featured(row, picture)
    return Featured(row, picture, split_spectrum(before, after), ring_radii(before), spectrum_chart(before, after))
