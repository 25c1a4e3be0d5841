from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryoplug.core.tiling import plan_tiles

plans = st.fixed_dictionaries(
    {
        "shape": st.tuples(st.integers(1, 70), st.integers(1, 70)),
        "tile": st.one_of(st.integers(1, 80), st.tuples(st.integers(1, 80), st.integers(1, 80))),
        "overlap": st.integers(0, 20),
        "multiple": st.sampled_from([1, 2, 3, 8]),
    }
)


@given(plans)
@settings(deadline=None)
def test_every_pixel_is_pasted_exactly_once(plan):
    shape = plan.pop("shape")
    count = np.zeros(shape, int)
    for tile in plan_tiles(shape, **plan):
        count[tile.paste.slices] += 1
    assert (count == 1).all()


@given(plans)
@settings(deadline=None)
def test_the_cropped_part_of_what_is_read_is_what_is_pasted(plan):
    shape = plan.pop("shape")
    image = np.arange(shape[0] * shape[1]).reshape(shape)
    for tile in plan_tiles(shape, **plan):
        assert (image[tile.read.slices][tile.crop.slices] == image[tile.paste.slices]).all()
        assert tile.crop.shape == tile.paste.shape


@given(plans)
@settings(deadline=None)
def test_reads_start_on_the_pooling_grid_and_reach_the_overlap_or_the_border(plan):
    shape = plan.pop("shape")
    for tile in plan_tiles(shape, **plan):
        assert tile.read.y0 % plan["multiple"] == 0 and tile.read.x0 % plan["multiple"] == 0
        assert tile.read.y0 == 0 or tile.paste.y0 - tile.read.y0 >= plan["overlap"]
        assert tile.read.x0 == 0 or tile.paste.x0 - tile.read.x0 >= plan["overlap"]
        assert tile.read.y1 == shape[0] or tile.read.y1 - tile.paste.y1 >= plan["overlap"]
        assert tile.read.x1 == shape[1] or tile.read.x1 - tile.paste.x1 >= plan["overlap"]


@given(plans)
@settings(deadline=None)
def test_tiles_come_row_by_row(plan):
    corners = [(tile.paste.y0, tile.paste.x0) for tile in plan_tiles(plan.pop("shape"), **plan)]
    assert corners == sorted(corners)


def test_an_image_smaller_than_a_tile_is_one_tile_without_padding():
    (tile,) = plan_tiles((5, 7), tile=64, overlap=12)
    assert tile.read == tile.crop == tile.paste
    assert tile.paste.shape == (5, 7)


@pytest.mark.parametrize("bad", [{"tile": 0}, {"overlap": -1}, {"multiple": 0}, {"tile": (4, 0)}])
def test_sizes_that_make_no_sense_are_refused_by_name(bad):
    with pytest.raises(ValueError, match="at least"):
        plan_tiles((8, 8), **{"tile": 4, "overlap": 1, **bad})


def test_an_empty_image_is_refused():
    with pytest.raises(ValueError, match="shape"):
        plan_tiles((0, 8), tile=4, overlap=1)
