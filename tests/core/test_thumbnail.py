"""Thumbnails: means of blocks, whatever bands the rows come in."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.thumbnail import THUMBNAIL_PX, Thumbnail, thumbnail_of, thumbnail_step
from cryoplug.errors import ShapeError


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    step=st.integers(1, 9),
    cuts=st.lists(st.integers(1, 39), max_size=4, unique=True),
)
def test_each_pixel_is_the_mean_of_its_block_however_the_bands_are_cut(
    height: int, width: int, step: int, cuts: list[int]
) -> None:
    image = np.random.default_rng(height * 41 + width).normal(100, 3, (height, width)).astype(np.float32)
    small = Thumbnail((height, width), step)
    y, x = small.steps
    edges = [0, *sorted(cut for cut in cuts if cut < height), height]
    bands = list(itertools.pairwise(edges))
    for start, stop in reversed(bands):
        small.add(start, image[start:stop])
    rows, columns = small.shape
    expected = image[: rows * y, : columns * x].reshape(rows, y, columns, x).mean(axis=(1, 3))
    np.testing.assert_allclose(small.image(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "shape", [(1, 1), (720, 10), (721, 10), (4096, 4096), (3838, 3710), (11520, 8184), (16384, 7), (1, 300_000)]
)
def test_no_side_is_longer_than_asked(shape: tuple[int, int]) -> None:
    small = Thumbnail(shape)
    assert 1 <= max(small.shape) <= THUMBNAIL_PX
    assert thumbnail_step(shape) == 1 or max(small.shape) >= THUMBNAIL_PX // 2


def test_a_micrograph_is_read_whole() -> None:
    image = np.arange(1500 * 40, dtype=np.float32).reshape(1500, 40)
    small = thumbnail_of(ArrayMicrograph(image, Path("a.mrc")))
    assert (small.pixels.shape, small.shape, small.steps) == ((500, 13), (1500, 40), (3, 3))
    assert small.pixels[0, 0] == image[:3, :3].mean()


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"shape \(0, 5\)"):
        Thumbnail((0, 5))
