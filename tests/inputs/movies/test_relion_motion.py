"""What RELION's motion correction says of a movie is followed."""

from __future__ import annotations

import numpy as np
import pytest

from cryoplug.errors import FormatError
from cryoplug.inputs.movies.motion import read_motion
from inputs.movies.made_movies import (
    FRAMES,
    drift,
    pixels,
    raw_frames,
    summed,
    write_motion,
    write_stack,
)


def test_hot_pixels_that_relion_found_are_repaired(tmp_path, pool):
    frames = raw_frames(still=True)
    frames[:, 100, 150] = 60000
    movie = write_stack(tmp_path / "m.mrc", frames)
    star = write_motion(tmp_path / "m.star", [(0, 0)] * FRAMES)
    table = "\ndata_hot_pixels\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n150.000000 100.000000 \n"
    star.write_text(star.read_text() + table)
    for image in pixels(summed(movie, pool)):
        assert image[100, 150] < 2 * np.median(image)


def test_frames_that_relion_left_out_are_left_out(tmp_path, pool):
    frames = raw_frames(still=True)
    movie = write_stack(tmp_path / "m.mrc", frames)
    star = write_motion(tmp_path / "m.star", [(0, 0)] * FRAMES)
    lines = star.read_text().splitlines(keepends=True)
    star.write_text("".join(line for line in lines if not line.startswith(("1 ", "9 "))))
    halves = summed(movie, pool)
    even, odd = pixels(halves)
    np.testing.assert_allclose(odd, frames[2:8:2].sum(0), rtol=1e-4)
    np.testing.assert_allclose(even, frames[1::2].sum(0), rtol=1e-4)
    assert any("2 of 9 frames" in text for text in halves.even.warnings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shifts": drift(8)}, "motion of 8 frames, but .* has 9; it belongs to another movie"),
        ({"shape": (320, 240)}, r"motion of frames of \(320, 240\)"),
        ({"shifts": [(0, 0)] * 8 + [(0, 9998)]}, "frame 9 is shifted by -9998, 0"),
        ({"rlnImageSizeX": "x"}, "rlnImageSizeX is 'x'; allowed: a positive whole number"),
    ],
)
def test_motion_of_another_movie_is_refused(tmp_path, pool, changes, message):
    movie = write_stack(tmp_path / "m.mrc", raw_frames(still=True))
    write_motion(tmp_path / "m.star", **{"shifts": drift(), **changes})
    with pytest.raises(FormatError, match=message):
        summed(movie, pool)


def test_a_star_file_of_another_kind_beside_a_movie_is_no_motion(tmp_path, pool):
    movie = write_stack(tmp_path / "m.mrc", raw_frames(still=True))
    (tmp_path / "m.star").write_text("\ndata_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 2 \n")
    assert any("no motion STAR file" in text for text in summed(movie, pool).even.warnings)


def test_real_motion_files_of_relion_are_read(shared_data):
    three = read_motion(shared_data / "star" / "relion31_spa" / "movie_frameImage.star")
    assert (three.shape, three.frames, three.group, len(three.shifts)) == ((3838, 3710), 24, 1, 24)
    assert three.shifts[2] == (0.261125, 0.712807)
    assert (three.has_local_model, len(three.hot_pixels), three.gain_name) == (True, 219, "")
    five = read_motion(shared_data / "star" / "relion5_spa" / "20170629_00021_frameImage.star")
    assert (five.shifts[24], five.gain_name) == ((-11.52884, 11.273892), "Movies/gain.mrc")
    assert read_motion(shared_data / "star" / "relion5_spa" / "corrected_micrographs.star") is None
