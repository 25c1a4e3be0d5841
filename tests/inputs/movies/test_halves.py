"""Frames become two halves: odd and even, corrected and aligned."""

from __future__ import annotations

import numpy as np
import pytest

from cryoplug.core.correlation import low_correlations, sample_image
from cryoplug.errors import InputError
from cryoplug.formats.mrc_writer import write_mrc
from inputs.movies.made_movies import (
    SHAPE,
    agreement,
    detector,
    drift,
    high,
    pixels,
    raw_frames,
    specimen,
    summed,
    write_motion,
    write_stack,
)


def test_odd_frames_make_the_odd_half_and_even_frames_the_even_one(tmp_path, pool):
    frames = raw_frames()
    even, odd = pixels(summed(write_stack(tmp_path / "m.mrc", frames), pool))
    np.testing.assert_array_equal(odd, frames[0::2].sum(0, dtype=np.float32))
    np.testing.assert_array_equal(even, frames[1::2].sum(0, dtype=np.float32))


def test_without_gain_stripes_are_shared_and_with_it_they_are_gone(tmp_path, pool):
    gain = detector()
    movie = write_stack(tmp_path / "m.mrc", raw_frames(gain=gain, still=True))
    write_mrc(tmp_path / "gain.mrc", gain, pixel_size_angstrom=1)
    assert high(summed(movie, pool)) > 0.15
    corrected = summed(movie, pool, tmp_path / "gain.mrc")
    assert abs(high(corrected)) < 0.03
    for image in pixels(corrected):
        assert agreement(image, specimen()) > 0.6


def test_frames_are_multiplied_by_the_gain_reference(tmp_path, pool):
    gain, frames = detector(), raw_frames(gain=detector())
    write_mrc(tmp_path / "gain.mrc", gain, pixel_size_angstrom=1)
    even, odd = pixels(summed(write_stack(tmp_path / "m.mrc", frames), pool, tmp_path / "gain.mrc"))
    np.testing.assert_allclose(odd, frames[0::2].sum(0) * gain, rtol=1e-6)
    np.testing.assert_allclose(even, frames[1::2].sum(0) * gain, rtol=1e-6)


def test_shifts_of_the_motion_star_file_align_the_frames(tmp_path, pool):
    movie = write_stack(tmp_path / "m.mrc", raw_frames())
    blurred = [agreement(image, specimen()) for image in pixels(summed(movie, pool))]
    write_motion(tmp_path / "m.star", drift())
    halves = summed(movie, pool)
    sharp = [agreement(image, specimen()) for image in pixels(halves)]
    still = pixels(summed(write_stack(tmp_path / "still.mrc", raw_frames(still=True)), pool))
    assert min(sharp) > max(blurred) + 0.1
    np.testing.assert_allclose(sharp, [agreement(image, specimen()) for image in still], atol=0.03)
    assert halves.even.pixel_size_angstrom == pytest.approx(1.1)


def test_drift_and_gain_together(tmp_path, pool):
    gain = detector()
    movie = write_stack(tmp_path / "m.mrc", raw_frames(gain=gain))
    write_motion(tmp_path / "m.star", drift())
    write_mrc(tmp_path / "gain.mrc", gain, pixel_size_angstrom=1)
    halves = summed(movie, pool, tmp_path / "gain.mrc")
    one, two = sample_image(halves.even), sample_image(halves.odd)
    assert max(low_correlations(one, two), key=lambda found: found.significance).significance > 10
    assert abs(high(halves)) < 0.03
    assert min(agreement(image, specimen()) for image in pixels(halves)) > 0.6


@pytest.mark.parametrize("kind", ["zero gain", "list", "map"])
def test_defects_are_repaired_in_both_halves(tmp_path, pool, kind):
    frames = raw_frames(still=True)
    frames[:, 50:60, 70:72] = 60000
    frames[:, :, 200] = 0
    bad = np.zeros(SHAPE, bool)
    bad[50:60, 70:72] = bad[:, 200] = True
    gain = defects = None
    if kind == "zero gain":
        gain = tmp_path / "gain.mrc"
        write_mrc(gain, np.where(bad, 0, 1).astype(np.float32), pixel_size_angstrom=1)
    elif kind == "list":
        defects = tmp_path / "defects.txt"
        defects.write_text(f"70 50 2 10\n200 0 1 {SHAPE[0]}\n")
    else:
        defects = tmp_path / "defects.mrc"
        write_mrc(defects, bad.astype(np.float32), pixel_size_angstrom=1)
    for image, first in zip(
        pixels(summed(write_stack(tmp_path / "m.mrc", frames), pool, gain, defects)), (1, 0), strict=True
    ):
        plain = frames[first::2].sum(0, dtype=np.float32)
        np.testing.assert_allclose(image[~bad], plain[~bad], rtol=1e-6)
        around = plain[45:65, 60:82][~bad[45:65, 60:82]]
        assert around.min() <= image[50:60, 70:72].min() <= image[50:60, 70:72].max() <= around.max()
        assert image[:, 200].min() > 0.5 * plain[:, 199].min()


def test_one_frame_is_no_movie(tmp_path, pool):
    with pytest.raises(InputError, match="one frame; the halves of a movie need two"):
        summed(write_stack(tmp_path / "m.mrc", raw_frames()[:1]), pool)
