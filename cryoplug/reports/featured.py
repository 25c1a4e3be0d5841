"""The few micrographs of a run that are within its page, with picture and spectrum; which ones, and how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence

from cryoplug.core.micrograph import MicrographSource
from cryoplug.reports.denoise_page import DenoiseRow, Featured
from cryoplug.reports.spectra import power_spectrum, ring_radii, spectrum_chart, split_spectrum

MOST_FEATURED = 8
"""Their pictures take about 3 MB in a page."""


def choose_featured(rows: Sequence[DenoiseRow], most: int = MOST_FEATURED) -> list[int]:
    """Choose micrographs: up to two with a warning, those with the least and the most noise removed, the others spread evenly."""
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
        Its place among the rows of the page.
    picture
        JPEG of its preview.
    raw, denoised
        Opened.
    pixel_size_angstrom, written_angstrom
        Of `raw` and of `denoised`; None when unknown.
    """
    before, after = power_spectrum(raw, pixel_size_angstrom), power_spectrum(denoised, written_angstrom)
    if before is None or after is None:
        return Featured(row, picture)
    # On a coarser grid the halves would not fit together: then the raw spectrum stands alone.
    alike = raw.shape == denoised.shape
    split = split_spectrum(before, after if alike else before)
    return Featured(row, picture, split, ring_radii(before), spectrum_chart(before, after))
