"""Movies with a known specimen, drift and detector: what `convert --pairs halves MOVIES` makes of them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import tifffile

from cryoplug.core.correlation import high_correlation, low_correlations, sample_image
from cryoplug.errors import FormatError, InputError, PairingError, ShapeError, Stopped, UsageError
from cryoplug.formats import registry
from cryoplug.formats.mrc_writer import write_mrc
from cryoplug.inputs.discovered import DiscoveredMicrograph
from cryoplug.inputs.movies.frame_sums import ShiftedSum
from cryoplug.inputs.movies.gain_of_run import RunGain
from cryoplug.inputs.movies.halves import Halves, MovieInput, MovieSummer
from cryoplug.inputs.movies.motion import read_motion
from cryoplug.store.pairs import open_store
from cryoplug.testing.movie_files import dm_file, eer_file
from cryoplug.workflows.convert import ConvertRequest, convert

SHAPE = (240, 320)
FRAMES = 9
DOSE = 30.0


def specimen(seed: int = 5, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Blobs of a few pixels, mean 1, contrast 20 %, that end smoothly before the border."""
    image = np.random.default_rng(seed).normal(size=shape)
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    image = np.fft.irfft2(np.fft.rfft2(image) * np.exp(-((fy**2 + fx**2) / (2 * 0.04**2))), s=shape)
    return 1 + 0.2 * image / image.std() * np.outer(np.hanning(shape[0]), np.hanning(shape[1]))


def detector(seed: int = 1, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """A gain reference with stripes in both directions and a pattern of single pixels."""
    rng = np.random.default_rng(seed)
    stripes = rng.normal(size=(shape[0], 1)) + rng.normal(size=(1, shape[1]))
    return (1 + 0.05 * stripes + 0.05 * rng.normal(size=shape)).clip(0.5, 2).astype(np.float32)


def drift(frames: int = FRAMES) -> list[tuple[float, float]]:
    """Where the specimen stands in each frame, (y, x) in pixels."""
    return [(1.3 * i - 0.1 * i * i, 0.9 * i) for i in range(frames)]


def moved(image: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    with ThreadPoolExecutor(1) as pool:
        total = ShiftedSum(image.shape, pool)
        total.add(image.astype(np.float32), shift)
        return total.result()


def raw_frames(*, gain: np.ndarray | None = None, still: bool = False, seed: int = 7, sample: int = 5) -> np.ndarray:
    """Electrons counted by a detector whose pixels lose 1 - 1 / gain of them."""
    rng = np.random.default_rng(seed)
    shifts = [(0.0, 0.0)] * FRAMES if still else drift()
    response = 1 if gain is None else 1 / np.where(gain == 0, np.inf, gain)
    return np.stack([rng.poisson(DOSE * moved(specimen(sample), s) * response) for s in shifts]).astype(np.uint16)


def write_stack(path: Path, frames: np.ndarray) -> Path:
    """Write an MRC stack of mode 6 by hand: the writer of cryoplug makes single images."""
    header = np.zeros(256, "<i4")
    header[:4] = *frames.shape[:0:-1], len(frames), 6
    header[7:10] = (*frames.shape[:0:-1], 1)
    header[10:13] = (np.array((*frames.shape[:0:-1], 1), "<f4") * np.float32(1.1)).view("<i4")
    header[13:16] = np.full(3, 90, "<f4").view("<i4")
    header[16:19] = 1, 2, 3
    header[52:54] = np.frombuffer(b"MAP DD\0\0", "<i4")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.tobytes() + frames.astype("<u2").tobytes())
    return path


def write_motion(path: Path, shifts: list[tuple[float, float]], *, shape: tuple[int, int] = SHAPE, **more: str) -> Path:
    """Write the motion STAR file of a movie; shifts undo a drift, so they are its opposite."""
    fields = {
        "rlnImageSizeX": shape[1],
        "rlnImageSizeY": shape[0],
        "rlnImageSizeZ": len(shifts),
        "rlnMicrographMovieName": path.with_suffix(".mrc"),
        "rlnMicrographOriginalPixelSize": "1.100000",
        **more,
    }
    lines = ["", "# version 30001", "", "data_general", "", *(f"_{key}   {value}" for key, value in fields.items())]
    lines += ["", "data_global_shift", "", "loop_"]
    lines += ["_rlnMicrographFrameNumber #1", "_rlnMicrographShiftX #2", "_rlnMicrographShiftY #3"]
    lines += [f"{i} {-x:.6f} {-y:.6f} " for i, (y, x) in enumerate(shifts, start=1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def item(path: Path, **more: object) -> MovieInput:
    return MovieInput(0, DiscoveredMicrograph(path, PurePosixPath(path.name)), **more)  # type: ignore[arg-type]


def summed(path: Path, pool: ThreadPoolExecutor, gain: Path | None = None, defects: Path | None = None) -> Halves:
    return MovieSummer(RunGain(gain, defects), pool).halves(item(path))


def pixels(halves: Halves) -> tuple[np.ndarray, np.ndarray]:
    return tuple(source.read_rows(0, source.shape[0]) for source in (halves.even, halves.odd))  # type: ignore[return-value]


def agreement(one: np.ndarray, two: np.ndarray) -> float:
    inner = np.s_[20:-20, 20:-20]
    return float(np.corrcoef(one[inner].ravel(), two[inner].ravel())[0, 1])


def high(halves: Halves) -> float:
    return high_correlation(sample_image(halves.even), sample_image(halves.odd)).value


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
    with pytest.raises(PairingError, match="; turn the file so and give that one") as refused:
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


def test_one_frame_is_no_movie(tmp_path, pool):
    with pytest.raises(InputError, match="one frame; the halves of a movie need two"):
        summed(write_stack(tmp_path / "m.mrc", raw_frames()[:1]), pool)


def test_real_motion_files_of_relion_are_read(shared_data):
    three = read_motion(shared_data / "star" / "relion31_spa" / "movie_frameImage.star")
    assert (three.shape, three.frames, three.group, len(three.shifts)) == ((3838, 3710), 24, 1, 24)
    assert three.shifts[2] == (0.261125, 0.712807)
    assert (three.has_local_model, len(three.hot_pixels), three.gain_name) == (True, 219, "")
    five = read_motion(shared_data / "star" / "relion5_spa" / "20170629_00021_frameImage.star")
    assert (five.shifts[24], five.gain_name) == ((-11.52884, 11.273892), "Movies/gain.mrc")
    assert read_motion(shared_data / "star" / "relion5_spa" / "corrected_micrographs.star") is None


def request(inputs: Path | tuple[str, ...], output: Path, **more: object) -> ConvertRequest:
    named = (str(inputs),) if isinstance(inputs, Path) else inputs
    return ConvertRequest(named, output, pairs="halves", patch_size=64, stride=64, test_split=0, **more)  # type: ignore[arg-type]


def test_a_folder_of_movies_becomes_a_store_of_aligned_corrected_halves(tmp_path):
    gain = detector()
    folder = tmp_path / "movies"
    for i in range(3):
        write_stack(folder / f"m{i}.mrc", raw_frames(gain=gain, seed=i, sample=50 + i))
        write_motion(folder / f"m{i}.star", drift())
    write_mrc(folder / "gain.mrc", gain, pixel_size_angstrom=1)
    asked = request(folder, tmp_path / "s", gain=folder / "gain.mrc")
    result = convert(asked)
    assert [(found.input.name, found.status) for found in result.files] == [(f"m{i}.mrc", "done") for i in range(3)]
    assert [found.message for found in result.files] == [""] * 3
    assert convert(asked).details["complete"]
    with open_store(tmp_path / "s") as store:
        assert store.verify() == []
        entry = store.manifest.micrographs[0]
        assert (entry.name, entry.clean_name, entry.pixel_size_angstrom) == ("m0.mrc", None, pytest.approx(1.1))
        assert entry.clean_normalization["scale"] > entry.normalization["scale"], "five odd frames, four even ones"
        noisy, clean = (np.empty((1, 64, 64), np.float32) for _ in range(2))
        store.read([6], noisy, clean)
        y, x = store.manifest.windows["train"][6][1:]
        truth = specimen(50)[y : y + 64, x : x + 64]
        assert min(np.corrcoef(side.ravel(), truth.ravel())[0, 1] for side in (noisy, clean)) > 0.6


def test_the_store_belongs_to_its_gain_defects_and_motion(tmp_path):
    movie = write_stack(tmp_path / "m.mrc", raw_frames(still=True))
    write_mrc(tmp_path / "gain.mrc", np.ones(SHAPE, np.float32), pixel_size_angstrom=1)
    (tmp_path / "d.txt").write_text("1 1 1 1\n")
    convert(request(movie, tmp_path / "s", gain=tmp_path / "gain.mrc"))
    with pytest.raises(UsageError, match="made with other gain;"):
        convert(request(movie, tmp_path / "s"))
    with pytest.raises(UsageError, match="made with other defects;"):
        convert(request(movie, tmp_path / "s", gain=tmp_path / "gain.mrc", defects=tmp_path / "d.txt"))
    write_motion(tmp_path / "m.star", drift())
    with pytest.raises(UsageError, match="made with other inputs;"):
        convert(request(movie, tmp_path / "s", gain=tmp_path / "gain.mrc"))


def test_what_is_missing_is_said_once_and_the_shared_pattern_for_each_movie(tmp_path):
    for i in range(2):
        write_stack(tmp_path / "in" / f"m{i}.mrc", raw_frames(gain=detector(), still=True, seed=i, sample=50 + i))
    first, second = (found.message for found in convert(request(tmp_path / "in", tmp_path / "s")).files)
    assert "no --gain: " in first
    assert "no motion STAR file" in first
    assert "no --gain: " not in second
    for message in (first, second):
        assert "fixed pattern: the halves correlate by 0." in message


def test_the_movies_of_a_corrected_micrographs_star_are_found_with_their_motion(tmp_path, monkeypatch):
    job = tmp_path / "MotionCorr" / "job002" / "Movies"
    write_stack(tmp_path / "Movies" / "m.mrc", raw_frames())
    write_mrc(job / "m.mrc", specimen().astype(np.float32), pixel_size_angstrom=2.2)
    write_motion(job / "m.star", drift(), rlnMicrographMovieName="Movies/m.mrc")
    star = tmp_path / "MotionCorr" / "job002" / "corrected_micrographs.star"
    star.write_text(
        "\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographMetadata #2\n"
        "MotionCorr/job002/Movies/m.mrc MotionCorr/job002/Movies/m.star \n"
    )
    (found,) = convert(request(star, tmp_path / "s")).files
    assert (found.input, found.status) == (tmp_path / "Movies" / "m.mrc", "done")
    assert "no motion" not in found.message
    with open_store(tmp_path / "s") as store:
        (entry,) = store.manifest.micrographs
        assert (entry.name, entry.pixel_size_angstrom) == ("Movies/m.mrc", pytest.approx(1.1))
    monkeypatch.chdir(tmp_path)
    assert convert(request(star.relative_to(tmp_path), tmp_path / "s")).details["complete"]


def test_halves_beside_micrographs_are_taken_when_there_are_no_movies(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(2):
        for side in ("", "_EVN", "_ODD"):
            noisy = specimen(i) + rng.normal(0, 0.2, SHAPE)
            write_mrc(tmp_path / "in" / f"m{i}{side}.mrc", noisy.astype(np.float32), pixel_size_angstrom=1)
    result = convert(request(tmp_path / "in", tmp_path / "s"))
    assert [found.input.name for found in result.files] == ["m0_EVN.mrc", "m1_EVN.mrc"]
    with pytest.raises(UsageError, match="has one frame, so that --gain and --defects cannot be applied"):
        convert(request(tmp_path / "in", tmp_path / "t", gain=tmp_path / "in" / "m0.mrc"))
    (tmp_path / "in" / "m1_ODD.mrc").unlink()
    with pytest.raises(PairingError, match=r"no m1_ODD\.mrc"):
        convert(request(tmp_path / "in", tmp_path / "t"))


def test_halves_of_two_exposures_fail_alone_and_by_name(tmp_path, shared_data):
    folder = shared_data / "halves_apoferritin"
    names = sorted(path.name.removesuffix("_EVN.mrc") for path in folder.glob("*_EVN.mrc"))
    for side, order in (("EVN", (0, 1, 2)), ("ODD", (0, 2, 1))):
        (tmp_path / side).mkdir()
        for i, which in enumerate(order):
            (tmp_path / side / f"m{i}_{side}.mrc").symlink_to(folder / f"{names[which]}_{side}.mrc")
    asked = {"pairs": "halves", "even": (f"{tmp_path}/EVN",), "odd": (f"{tmp_path}/ODD",), "patch_size": 512}
    found = convert(ConvertRequest((), tmp_path / "s", **asked))
    assert [item.status for item in found.files] == ["done", "failed", "failed"]
    assert re.search(r"m1_EVN\.mrc and .*m1_ODD\.mrc do not belong together: .* 0\.0", found.files[1].message)
    assert found.exit_code == 3
    result = convert(ConvertRequest((), tmp_path / "t", accept_unproven=True, **asked))
    assert ["accepted without proof" in found.message for found in result.files] == [False, True, True]


def test_a_half_and_its_copy_are_refused(tmp_path):
    noisy = (specimen() + np.random.default_rng(0).normal(0, 0.5, SHAPE)).astype(np.float32)
    for side in ("EVN", "ODD"):
        write_mrc(tmp_path / f"m_{side}.mrc", noisy, pixel_size_angstrom=1)
    found = convert(request(tmp_path, tmp_path / "s"))
    assert "are one image: the halves correlate by 1.000" in found.files[0].message
    assert found.exit_code == 4, "nothing else is there"


def test_a_signal_while_frames_are_summed_stops_before_the_next_frame(tmp_path, monkeypatch):
    for i in range(2):
        write_stack(tmp_path / "in" / f"m{i}.mrc", raw_frames(seed=i, sample=50 + i))
    convert(request(tmp_path / "in", tmp_path / "t"))
    opened, read = registry.open_movie, []

    def open_movie(path: Path):
        movie = opened(path)
        plain = movie.read_frame

        def read_frame(index: int) -> np.ndarray:
            read.append((path.name, index))
            if (path.name, index) == ("m1.mrc", 3):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.1)  # Until the main thread has run the handler.
            return plain(index)

        movie.read_frame = read_frame
        return movie

    with monkeypatch.context() as patched:
        patched.setattr(registry, "open_movie", open_movie)
        with pytest.raises(Stopped, match="micrographs are safe") as caught:
            convert(request(tmp_path / "in", tmp_path / "s"))
    assert caught.value.exit_code == 143
    assert read[-1] == ("m1.mrc", 3)
    assert convert(request(tmp_path / "in", tmp_path / "s")).exit_code == 0
    for name in ("noisy_train.bin", "clean_train.bin"):
        assert (tmp_path / "s" / name).read_bytes() == (tmp_path / "t" / name).read_bytes()


MEASURE = """
import sys
from pathlib import Path
import numpy as np
from concurrent.futures import ThreadPoolExecutor
from cryoplug.inputs.movies.gain_of_run import RunGain
from cryoplug.inputs.movies.halves import MovieInput, MovieSummer
from cryoplug.inputs.discovered import DiscoveredMicrograph
from cryoplug.formats import registry
def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024
path = Path(sys.argv[1])
np.fft.rfft(np.ones(8, np.float32))
with ThreadPoolExecutor(2) as pool:
    before = peak()
    MovieSummer(RunGain(Path(sys.argv[2]), None), pool).halves(MovieInput(0, DiscoveredMicrograph(path, path)))
    print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own count of memory")
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    shape = (2000, 2500)
    write_mrc(tmp_path / "gain.mrc", np.ones(shape, np.float32), pixel_size_angstrom=1)
    taken = []
    for count in (4, 16):
        frames = np.random.default_rng(0).poisson(5, (count, *shape))
        movie = write_stack(tmp_path / f"m{count}.mrc", frames)
        write_motion(tmp_path / f"m{count}.star", [(0.5, 0.5)] * count, shape=shape)
        command = [sys.executable, "-c", MEASURE, str(movie), str(tmp_path / "gain.mrc")]
        taken.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    frame_mb = shape[0] * shape[1] * 4 / 2**20
    assert max(taken) < 10 * frame_mb
    assert taken[1] < taken[0] + frame_mb
