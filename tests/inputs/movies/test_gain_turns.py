"""Which way up a gain reference is, and what is said of one that does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from cryoplug.errors import PairingError, ShapeError
from cryoplug.formats.mrc_writer import write_mrc
from cryoplug.testing.movie_files import dm_file, eer_file
from inputs.movies.made_movies import (
    detector,
    drift,
    pixels,
    raw_frames,
    summed,
    write_motion,
    write_stack,
)


def test_tiff_movies_are_turned_as_relion_turns_them(tmp_path, pool):
    """One exposure as MRC and, upside down, as TIFF: gain (MRC), list of defects and shifts serve both alike."""
    gain, frames = detector(), raw_frames(gain=detector())
    frames[:, 30:33, 40:45] = 50000
    write_mrc(tmp_path / "gain.mrc", gain, pixel_size_angstrom=1)
    tifffile.imwrite(tmp_path / "gain.tif", gain[::-1])
    (tmp_path / "d.txt").write_text("40 30 5 3\n")
    write_stack(tmp_path / "a.mrc", frames)
    tifffile.imwrite(tmp_path / "b.tif", frames[:, ::-1])
    for name in "ab":
        write_motion(tmp_path / f"{name}.star", drift())
    expected = pixels(summed(tmp_path / "a.mrc", pool, tmp_path / "gain.mrc", tmp_path / "d.txt"))
    for name in ("gain.mrc", "gain.tif"):
        halves = summed(tmp_path / "b.tif", pool, tmp_path / name, tmp_path / "d.txt")
        for image, reference in zip(pixels(halves), expected, strict=True):
            np.testing.assert_allclose(image, reference, rtol=1e-4, atol=0.05)


@pytest.mark.parametrize("name", ["gain.tif", "gain.gain", "gain.mrc", "gain.dm4"])
@pytest.mark.parametrize("movie", ["m.tif", "m.mrc"])
def test_a_gain_reference_is_one_picture_whatever_its_file_is_called(tmp_path, pool, name, movie):
    """A TIFF called .gain, as EPU writes it, is a TIFF; only beside EER movies RELION has another rule for it."""
    gain, frames = detector(), raw_frames(gain=detector(), still=True)
    if movie == "m.tif":
        tifffile.imwrite(tmp_path / movie, frames[:, ::-1], photometric="minisblack")
    else:
        write_stack(tmp_path / movie, frames)
    save_gain(tmp_path / name, gain)
    even, odd = pixels(summed(tmp_path / movie, pool, tmp_path / name))
    np.testing.assert_allclose(odd, frames[0::2].sum(0) * gain, rtol=1e-6)
    np.testing.assert_allclose(even, frames[1::2].sum(0) * gain, rtol=1e-6)


def save_gain(path: Path, gain: np.ndarray, *, as_stored: bool = False) -> None:
    """Write a gain reference that lies as in an MRC file; `as_stored` writes the rows in the order given."""
    if path.suffix == ".mrc":
        write_mrc(path, gain, pixel_size_angstrom=1)
    elif path.suffix == ".dm4":
        pytest.importorskip("ncempy")
        dm_file(path, (gain if as_stored else gain[::-1])[None])
    else:
        tifffile.imwrite(path, gain if as_stored else gain[::-1])


TURNS = {
    "turned upside down": lambda g: g[::-1],
    "mirrored left to right": lambda g: g[:, ::-1],
    "rotated by 180 degrees": lambda g: g[::-1, ::-1],
    "transposed": lambda g: g.T,
    "rotated by 90 degrees clockwise": lambda g: np.rot90(g, -1),
    "rotated by 90 degrees anticlockwise": lambda g: np.rot90(g),
    "rotated by 180 degrees and transposed": lambda g: g[::-1, ::-1].T,
}


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("name", ["gain.tif", "gain.mrc"])
@pytest.mark.parametrize("movie", ["m.tif", "m.mrc"])
def test_a_gain_file_turned_as_the_message_says_is_accepted(tmp_path, pool, turn, name, movie):
    """The message speaks of the file, whose rows may run the other way than those of an MRC."""
    shape = (240, 240)
    gain = detector(shape=shape)
    frames = np.random.default_rng(1).poisson(30 / np.broadcast_to(gain, (9, *shape))).astype(np.uint16)
    if movie == "m.tif":
        tifffile.imwrite(tmp_path / movie, frames[:, ::-1], photometric="minisblack")
    else:
        write_stack(tmp_path / movie, frames)
    stored = np.ascontiguousarray(turn(gain[::-1] if name == "gain.tif" else gain))
    save_gain(tmp_path / name, stored, as_stored=True)
    with pytest.raises(PairingError, match="; turn the file in this way, and give that one") as refused:
        summed(tmp_path / movie, pool, tmp_path / name)
    said = str(refused.value).split(" than ")[1]
    advice = max((text for text in TURNS if said.startswith(text)), key=len)
    save_gain(tmp_path / name, np.ascontiguousarray(TURNS[advice](stored)), as_stored=True)
    _, odd = pixels(summed(tmp_path / movie, pool, tmp_path / name))
    np.testing.assert_allclose(odd, frames[0::2].sum(0) * gain, rtol=1e-6)


@pytest.mark.parametrize("name", ["ref.gain", "ref.tif", "ref.mrc"])
def test_the_gain_of_an_eer_movie_follows_the_rule_of_relion(tmp_path, pool, name):
    """RELION: a .gain file lies as the movie does and is multiplied; any other is turned if TIFF, and divided by."""
    side = 64
    rng = np.random.default_rng(3)
    gain = rng.choice([0.5, 1.0, 2.0], (side, side)).astype(np.float32)
    electrons = [np.argwhere(rng.random((side, side)) < 0.2 / gain).tolist() for _ in range(4)]
    eer_file(tmp_path / "m.eer", electrons, side=side)
    frames = np.zeros((4, side, side), np.float32)
    for frame, places in zip(frames, electrons, strict=True):
        frame[tuple(np.array(places).T)] = 1
    if name == "ref.gain":
        tifffile.imwrite(tmp_path / name, np.stack([gain, np.ones_like(gain)]))  # RELION takes the first page
        factor = gain
    else:
        save_gain(tmp_path / name, 1 / gain)
        factor = (1 / gain).mean() * gain
    even, odd = pixels(summed(tmp_path / "m.eer", pool, tmp_path / name))
    np.testing.assert_allclose(odd, frames[0::2].sum(0) * factor, rtol=1e-5)
    np.testing.assert_allclose(even, frames[1::2].sum(0) * factor, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((320, 240), r"gain\.mrc: gain reference of shape \(320, 240\) .* rotate it by 90 degrees"),
        ((480, 640), "another binning"),
        ((100, 100), "must have the shape of a frame"),
    ],
)
def test_a_gain_reference_of_another_shape_is_refused_with_a_hint(tmp_path, pool, shape, message):
    movie = write_stack(tmp_path / "m.mrc", raw_frames())
    write_mrc(tmp_path / "gain.mrc", np.ones(shape, np.float32), pixel_size_angstrom=1)
    with pytest.raises(ShapeError, match=message):
        summed(movie, pool, tmp_path / "gain.mrc")


def test_a_turned_gain_reference_is_refused_with_the_turn_that_fits(tmp_path, pool):
    gain = detector()
    movie = write_stack(tmp_path / "m.mrc", raw_frames(gain=gain))
    write_mrc(tmp_path / "gain.mrc", np.ascontiguousarray(gain[::-1, ::-1]), pixel_size_angstrom=1)
    with pytest.raises(PairingError, match=r"gain\.mrc: the gain reference and .*m\.mrc: .* rotated by 180 degrees"):
        summed(movie, pool, tmp_path / "gain.mrc")
