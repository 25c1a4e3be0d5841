"""Pixel sizes of lists: several optics groups, rows, RELION 3.0; and another one written where readers look for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryoplug.formats.star import StarFile, format_star, image_table, parse_star
from cryoplug.formats.star_pixel_size import with_pixel_size

OPTICS = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n"
TABLE = "\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n"
STARS = {
    "optics groups": f"{OPTICS}_rlnMicrographPixelSize #2\n1 1.3\n2 2.6\n{TABLE}_rlnOpticsGroup #2\na.mrc 2\nb.mrc 1\n",
    "original size": f"{OPTICS}_rlnMicrographOriginalPixelSize #2\n1 1.3\n{TABLE}_rlnOpticsGroup #2\na.mrc 1\nb.mrc 1\n",
    "no size at all": f"{OPTICS}_rlnVoltage #2\n1 300.0\n{TABLE}_rlnOpticsGroup #2\na.mrc 1\nb.mrc 1\n",
    "rows": f"{TABLE}_rlnMicrographPixelSize #2\na.mrc 2.6\nb.mrc 1.3\n",
    "rows beside groups": f"{OPTICS}_rlnVoltage #2\n1 300.0\n{TABLE}_rlnOpticsGroup #2\n_rlnMicrographPixelSize #3\n"
    "a.mrc 1 2.6\nb.mrc 1 1.3\n",
    "RELION 3.0": f"{TABLE}_rlnDetectorPixelSize #2\n_rlnMagnification #3\na.mrc 5.0 19230.769231\nb.mrc 5.0 38461.538462\n",
    "names alone": f"{TABLE}a.mrc\nb.mrc\n",
}
SIZES = {
    "optics groups": [2.6, 1.3],
    "original size": [1.3, 1.3],
    "no size at all": [None, None],
    "rows": [2.6, 1.3],
    "rows beside groups": [2.6, 1.3],
    "RELION 3.0": [2.6, 1.3],
    "names alone": [None, None],
}


def star(kind: str) -> StarFile:
    return parse_star(STARS[kind], Path("m.star"))


@pytest.mark.parametrize("kind", list(STARS))
def test_each_row_gets_the_size_that_the_list_says_of_it(kind: str) -> None:
    found = image_table(star(kind)).pixel_sizes
    assert found == [None if size is None else pytest.approx(size) for size in SIZES[kind]]


@pytest.mark.parametrize("kind", list(STARS))
def test_a_stated_size_is_what_readers_find_and_all_else_stays(kind: str) -> None:
    written = parse_star(format_star(with_pixel_size(star(kind), 3.9)), Path("out.star"))
    assert image_table(written).pixel_sizes == [3.9, 3.9]
    before, after = star(kind).blocks, written.blocks
    assert [block.name for block in before] == [block.name for block in after]
    for one, two in zip(before, after, strict=True):
        assert two.columns[: len(one.columns)] == one.columns and len(one.rows) == len(two.rows)
        for name in one.columns:
            if "PixelSize" not in name and name != "rlnMagnification":
                assert one.column(name) == two.column(name)


def test_the_sampling_of_particles_stays_theirs() -> None:
    text = f"{OPTICS}_rlnImagePixelSize #2\n_rlnMicrographPixelSize #3\n1 5.2 1.3\n\ndata_particles\n\nloop_\n"
    text += "_rlnMicrographName #1\n_rlnImageName #2\n_rlnOpticsGroup #3\na.mrc 1@a.mrcs 1\n"
    written = with_pixel_size(parse_star(text, Path("p.star")), 2.6)
    optics = written.block("optics")
    assert optics is not None and optics.column("rlnImagePixelSize") == ["5.2"]
    assert image_table(written).pixel_sizes == [2.6]
