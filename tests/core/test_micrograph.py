"""Laws of an opened micrograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoplug.core.micrograph import ArrayMicrograph, row_bands
from cryoplug.errors import ShapeError


@pytest.mark.parametrize("band_rows", [1, 3, 7, 100])
def test_bands_cover_every_row_once(band_rows: int) -> None:
    pixels = np.arange(7 * 5, dtype=np.int16).reshape(7, 5)
    with ArrayMicrograph(pixels) as source:
        bands = list(row_bands(source, band_rows=band_rows))
    assert np.array_equal(np.concatenate([rows for _, rows in bands]), pixels)
    assert [start for start, _ in bands] == list(range(0, 7, band_rows))
    assert all(rows.dtype == np.float32 and rows.flags.c_contiguous for _, rows in bands)


def test_rows_outside_are_refused_by_number() -> None:
    source = ArrayMicrograph(np.zeros((4, 4)), Path("mic.mrc"))
    with pytest.raises(ShapeError, match=r"mic\.mrc: rows 2 to 5 .* rows 0 to 4"):
        source.read_rows(2, 5)


def test_rows_are_a_copy() -> None:
    pixels = np.ones((4, 4), np.float32)
    ArrayMicrograph(pixels).read_rows(0, 4)[:] = 0
    assert pixels.all()


@pytest.mark.parametrize("shape", [(3,), (0, 4), (2, 3, 4)])
def test_an_image_has_two_axes_and_a_pixel(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="at least one pixel"):
        ArrayMicrograph(np.zeros(shape))
