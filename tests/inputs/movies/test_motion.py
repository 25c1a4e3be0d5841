"""What RELION's motion correction left out, binned, lost or never knew, and what the halves make of it."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import tifffile

from cryoplug.core.fourier_crop import resample_image
from cryoplug.errors import FormatError, InputError
from cryoplug.inputs.movies.gain_of_run import RunGain
from cryoplug.inputs.movies.halves import Halves, MovieInput, MovieSummer
from cryoplug.inputs.pairing import PairedInput
from cryoplug.store.pairs import open_store
from cryoplug.testing.movie_files import eer_file
from cryoplug.workflows.convert import ConvertRequest, convert
from cryoplug.workflows.convert.inputs import list_inputs

LEFT_OUT = (-9999.0, -9999.0)
STILL = (0.0, 0.0)
JOB = "MotionCorr/job002"


def counts(seed: int = 1, frames: int = 8, side: int = 64) -> np.ndarray:
    """Frames of one specimen, from zero up to a few electrons a pixel."""
    rng = np.random.default_rng(seed)
    f = np.fft.fftfreq(side)[:, None] ** 2 + np.fft.rfftfreq(side)[None] ** 2
    blobs = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) * np.exp(-f / (2 * 0.06**2)), s=(side, side))
    return rng.poisson(6 * (1 + 0.3 * blobs / blobs.std()).clip(0.05), (frames, side, side)).astype(np.int16)


def movie_file(path: Path, frames: np.ndarray) -> None:
    """Write a movie whose frames lie as in an MRC file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, frames[:, ::-1].astype(np.uint16), photometric="minisblack")
        return
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(frames)
        file.set_image_stack()


def motion_star(path: Path, movie: str, shifts: list[tuple[float, float]], side: int = 64, **more: object) -> Path:
    """Write the motion STAR file of a movie, line by line as RELION does; shifts are (x, y)."""
    fields = {
        "rlnImageSizeX": side,
        "rlnImageSizeY": side,
        "rlnImageSizeZ": len(shifts),
        "rlnMicrographMovieName": movie,
        "rlnMicrographBinning": "1.000000",
        "rlnMicrographOriginalPixelSize": "0.830000",
        "rlnMicrographStartFrame": 1,
        **more,
    }
    lines = [
        "",
        "# version 30001",
        "",
        "data_general",
        "",
        *(f"_{key}   {value}" for key, value in fields.items()),
        " ",
    ]
    lines += ["", "# version 30001", "", "data_global_shift", "", "loop_ "]
    lines += ["_rlnMicrographFrameNumber #1 ", "_rlnMicrographShiftX #2 ", "_rlnMicrographShiftY #3 "]
    lines += [f"{i:12d} {x:12.6f} {y:12.6f} " for i, (x, y) in enumerate(shifts, start=1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, " ", ""]))
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a function that writes a RELION project of three movies into the working folder."""
    monkeypatch.chdir(tmp_path)

    def make(
        shifts: list[tuple[float, float]],
        *,
        ending: str = "mrc",
        side: int = 64,
        pixel_size: float = 0.83,
        **more: object,
    ) -> str:
        rows = ""
        for i in (1, 2, 3):
            movie = f"Movies/mic_{i:04d}.{ending}"
            movie_file(Path(movie), counts(i, len(shifts), side))
            motion_star(Path(f"{JOB}/Movies/mic_{i:04d}.star"), movie, shifts, side, **more)
            with mrcfile.new(f"{JOB}/Movies/mic_{i:04d}.mrc") as file:
                file.set_data(np.ones((side, side), np.float32))
            rows += f"{JOB}/Movies/mic_{i:04d}.mrc {JOB}/Movies/mic_{i:04d}.star 1\n"
        Path(f"{JOB}/corrected_micrographs.star").write_text(
            "\ndata_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnMicrographPixelSize #3\n"
            f"_rlnMicrographOriginalPixelSize #4\no 1 {pixel_size:.6f} 0.83\n\ndata_micrographs\n\nloop_\n"
            f"_rlnMicrographName #1\n_rlnMicrographMetadata #2\n_rlnOpticsGroup #3\n{rows}\n"
        )
        return f"{JOB}/corrected_micrographs.star"

    return make


def listed(*inputs: str) -> tuple[PairedInput, ...]:
    asked = ConvertRequest(inputs, Path("store"), pairs="halves")
    return list_inputs(asked).pairs


def summed(*inputs: str) -> tuple[Halves, np.ndarray, np.ndarray]:
    """Sum the first movie of a list; give its halves, and both as arrays."""
    movie = listed(*inputs)[0]
    assert isinstance(movie, MovieInput)
    with ThreadPoolExecutor(1) as pool:
        halves = MovieSummer(RunGain(None, None), pool).halves(movie)
    even, odd = (half.read_rows(0, half.shape[0]) for half in (halves.even, halves.odd))
    return halves, even, odd


def converted(star: str, **more: Any) -> Any:
    asked = ConvertRequest(
        (star,), Path("store"), pairs="halves", patch_size=32, stride=32, test_split=0, accept_unproven=True, **more
    )
    return convert(asked)


# Frames that RELION left out


@pytest.mark.parametrize(
    ("left_out", "first"),
    [((1,), 2), ((7, 8), 1), ((1, 2, 8), 3), ((4,), 1)],
    ids=["first_frame_sum 2", "last_frame_sum 6", "3 to 7", "one within"],
)
@pytest.mark.parametrize("mark", [LEFT_OUT, (-9999.0, 0.0), (0.0, -9999.0)], ids=["x and y", "x", "y"])
def test_frames_marked_not_observed_are_left_out_of_the_halves(project, left_out, first, mark):
    star = project([mark if i in left_out else STILL for i in range(1, 9)], rlnMicrographStartFrame=first)
    halves, even, odd = summed(star)
    kept = [i for i in range(1, 9) if i not in left_out]
    np.testing.assert_allclose(odd, sum(counts()[i - 1] for i in kept if i % 2), atol=1e-3)
    np.testing.assert_allclose(even, sum(counts()[i - 1] for i in kept if i % 2 == 0), atol=1e-3)
    said = f"{len(left_out)} of 8 frames were left out by RELION, and are left out of the halves"
    assert said in halves.even.warnings


def test_frames_before_the_first_that_was_summed_are_left_out(project):
    _, even, odd = summed(project([STILL] * 8, rlnMicrographStartFrame=4))
    np.testing.assert_allclose(odd, counts()[4] + counts()[6], atol=1e-3)
    np.testing.assert_allclose(even, counts()[3] + counts()[5] + counts()[7], atol=1e-3)


def test_where_no_shift_is_known_frames_are_summed_as_they_are_and_it_is_said(project):
    """MotionCor2 1.5 and later behind RELION 5: every frame is marked."""
    halves, even, odd = summed(project([LEFT_OUT] * 8, rlnMicrographStartFrame=3))
    np.testing.assert_array_equal(odd, counts()[2::2].sum(0, dtype=np.float32))
    np.testing.assert_array_equal(even, counts()[3::2].sum(0, dtype=np.float32))
    assert any("has no shifts" in text and "MotionCor2" in text for text in halves.even.warnings)


@pytest.mark.parametrize("upsampling", [1, 2, 4])
def test_groups_of_an_eer_movie_that_were_left_out_are_left_out(tmp_path, upsampling):
    """The constant lies within frames of 16384 pixels, where it was once taken for a shift."""
    side, rng = 64, np.random.default_rng(4)
    electrons = [np.argwhere(rng.random((side, side)) < 0.1).tolist() for _ in range(9)]
    eer_file(tmp_path / "m.eer", electrons, side=side, seed=2)
    shifts = [LEFT_OUT, STILL, STILL, LEFT_OUT]
    # As in a frame of 16384 pixels, the mark is a possible shift.
    motion_star(tmp_path / "m.star", "m.eer", shifts, side * upsampling, rlnEERGrouping=2, rlnMicrographStartFrame=2)
    _, even, odd = summed(str(tmp_path / "m.eer"))
    frames = np.zeros((9, side, side), np.float32)
    for frame, places in zip(frames, electrons, strict=True):
        frame[tuple(np.array(places).T)] = 1
    # A movie for itself stays at the detector's pixels; raw frames 3 to 6 are those of groups 2 and 3.
    np.testing.assert_allclose(odd, frames[2] + frames[4], atol=1e-3)
    np.testing.assert_allclose(even, frames[3] + frames[5], atol=1e-3)


# One bad exposure of many


def empty(star: Path, movie: Path) -> None:
    star.write_text("")


def cut_in_the_header(star: Path, movie: Path) -> None:
    star.write_bytes(star.read_bytes()[:300])


def cut_within_a_number(star: Path, movie: Path) -> None:
    star.write_bytes(star.read_bytes().rstrip()[:-3])


def cut_before_the_first_row(star: Path, movie: Path) -> None:
    text = star.read_text()
    star.write_text(text[: text.index("ShiftY #3 \n") + len("ShiftY #3 \n")])


def missing(star: Path, movie: Path) -> None:
    star.unlink()


def of_another_kind(star: Path, movie: Path) -> None:
    star.write_text("\ndata_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 2 \n")


def a_folder(star: Path, movie: Path) -> None:
    star.unlink()
    star.mkdir()


def of_more_frames(star: Path, movie: Path) -> None:
    motion_star(star, str(movie), [STILL] * 9)


def of_larger_frames(star: Path, movie: Path) -> None:
    motion_star(star, str(movie), [STILL] * 8, 128)


def movie_gone(star: Path, movie: Path) -> None:
    movie.unlink()


def movie_is_garbage(star: Path, movie: Path) -> None:
    movie.write_bytes(b"x" * 3000)


def frame_listed_twice(star: Path, movie: Path) -> None:
    star.write_text(star.read_text().replace("           2 ", "           3 "))


@pytest.mark.parametrize(
    ("harm", "named", "reason"),
    [
        (empty, "mic_0002.star", "no data_ block"),
        (cut_in_the_header, "mic_0002.star", "ends within|cut"),
        (cut_within_a_number, "mic_0002.star", "ends within this line"),
        (cut_before_the_first_row, "mic_0002.star", "lists no frame"),
        (missing, "mic_0002.star", "no such file"),
        (of_another_kind, "mic_0002.star", "names no movie"),
        (a_folder, "mic_0002.star", "not a regular file"),
        (of_more_frames, "mic_0002.star", "motion of 9 frames, but Movies/mic_0002.mrc has 8"),
        (of_larger_frames, "mic_0002.star", r"motion of frames of \(128, 128\)"),
        (movie_gone, "Movies/mic_0002.mrc", "no such file"),
        (movie_is_garbage, "Movies/mic_0002.mrc", "not a micrograph"),
        (frame_listed_twice, "mic_0002.star", "frame 3 is listed twice"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_one_bad_motion_file_or_movie_fails_that_exposure_alone(project, harm, named, reason):
    star = project([STILL, *((i * 0.5, -i * 0.3) for i in range(1, 8))])
    harm(Path(f"{JOB}/Movies/mic_0002.star"), Path("Movies/mic_0002.mrc"))
    result = converted(star)
    assert result.exit_code == 3
    assert [found.status for found in result.files] == ["done", "failed", "done"]
    failed = result.files[1]
    text = failed.message if named in failed.message else f"{failed.input}: {failed.message}"
    assert named in text

    assert re.search(reason, text), text


def test_a_movie_is_never_looked_for_where_its_micrograph_lies(project, monkeypatch):
    """Also from another folder, and with absolute paths in the list."""
    star = Path(project([STILL] * 8))
    text = star.read_text().replace(f"{JOB}/Movies", f"{Path.cwd()}/{JOB}/Movies")
    star.write_text(text)
    Path("Movies/mic_0002.mrc").unlink()
    absolute = star.absolute()
    monkeypatch.chdir("/")
    movies = listed(str(absolute))
    places = [item.noisy.path for item in movies]
    root = absolute.parents[2]
    assert places[0] == root / "Movies/mic_0001.mrc" and places[2] == root / "Movies/mic_0003.mrc"
    assert JOB not in str(places[1])


def test_when_every_movie_is_gone_each_is_named(project):
    star = project([STILL] * 8)
    shutil.rmtree("Movies")
    result = converted(star)
    assert result.exit_code == 4
    assert [str(found.input) for found in result.files] == [f"Movies/mic_{i:04d}.mrc" for i in (1, 2, 3)]


# Binning


@pytest.mark.parametrize("ending", ["mrc", "tif"])
@pytest.mark.parametrize(("binning", "side"), [(2.0, 64), (1.5, 96), (1.0, 64)])
def test_halves_have_grid_and_pixel_size_of_their_micrograph(project, ending, binning, side):
    star = project(
        [STILL] * 8, ending=ending, side=side, pixel_size=0.83 * binning, rlnMicrographBinning=f"{binning:.6f}"
    )
    halves, even, odd = summed(star)
    shape = (int(side / binning),) * 2
    assert halves.even.shape == halves.odd.shape == shape
    assert halves.even.pixel_size_angstrom == pytest.approx(0.83 * binning)
    np.testing.assert_allclose(odd, resample_image(counts(1, 8, side)[0::2].sum(0), shape), atol=1e-3)
    np.testing.assert_allclose(even, resample_image(counts(1, 8, side)[1::2].sum(0), shape), atol=1e-3)
    result = converted(star)
    assert result.exit_code == 0
    with open_store(Path("store")) as store:
        entry = store.manifest.micrographs[0]
        assert (entry.shape, entry.pixel_size_angstrom) == (shape, pytest.approx(0.83 * binning))


def test_a_movie_given_for_itself_is_binned_as_its_motion_file_says(tmp_path):
    movie_file(tmp_path / "m.tif", counts())
    motion_star(tmp_path / "m.star", "m.tif", [STILL] * 8, rlnMicrographBinning="2.000000")
    halves, _, _ = summed(str(tmp_path / "m.tif"))
    assert halves.even.shape == (32, 32)
    assert halves.even.pixel_size_angstrom == pytest.approx(1.66)


def test_the_list_is_believed_where_it_gives_another_pixel_size_and_that_is_said(project):
    halves, _, _ = summed(project([STILL] * 8, pixel_size=1.0))
    assert halves.even.pixel_size_angstrom == 1.0
    assert any("pixel size 1 A in the list, 0.83 A by its motion" in text for text in halves.even.warnings)


@pytest.mark.parametrize("seen", [(7,), (0, 2, 4)], ids=["one frame", "one side"])
@pytest.mark.parametrize("shift", [STILL, (1.0, 2.0)], ids=["still", "shifted"])
def test_a_half_of_which_no_frame_is_left_is_named_as_such(project, seen, shift):
    star = project([shift if index in seen else LEFT_OUT for index in range(8)])
    with pytest.raises(InputError, match=rf"{len(seen)} of 8 frames are left, none of them for one of the halves"):
        summed(star)


@pytest.mark.parametrize("binning", ["0", "-2", "nan", "x", "1000"])
def test_a_binning_that_cannot_be_is_refused(project, binning):
    star = project([STILL] * 8, rlnMicrographBinning=binning)
    with pytest.raises(FormatError, match="rlnMicrographBinning is"):
        summed(star)


@pytest.mark.parametrize(("upsampling", "binning"), [(2, 1), (2, 2), (4, 1), (4, 2)])
def test_halves_of_eer_movies_in_a_list_are_as_fine_as_their_micrographs(tmp_path, monkeypatch, upsampling, binning):
    """Electrons have places within the detector's pixels; a movie for itself stays at those."""
    monkeypatch.chdir(tmp_path)
    side, rng = 64, np.random.default_rng(4)
    electrons = [np.argwhere(rng.random((side, side)) < 0.1).tolist() for _ in range(8)]
    eer_file(tmp_path / "m.eer", electrons, side=side, seed=2)
    fields = {"rlnEERGrouping": 2, "rlnMicrographBinning": f"{binning:.6f}", "rlnEERUpsampling": upsampling}
    motion_star(Path(f"{JOB}/m.star"), "m.eer", [STILL] * 4, side * upsampling, **fields)
    Path(f"{JOB}/corrected_micrographs.star").write_text(
        f"\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographMetadata #2\n{JOB}/m.mrc {JOB}/m.star\n"
    )
    halves, even, odd = summed(f"{JOB}/corrected_micrographs.star")
    assert halves.even.shape == (side * upsampling // binning,) * 2
    assert halves.even.pixel_size_angstrom == pytest.approx(0.83 * binning)
    assert odd.sum() == pytest.approx(sum(map(len, electrons[0::2])), rel=1e-4)
    assert even.sum() == pytest.approx(sum(map(len, electrons[1::2])), rel=1e-4)
    shutil.copy(f"{JOB}/m.star", "m.star")
    alone, _, _ = summed("m.eer")
    assert alone.even.shape == (min(side, side * upsampling // binning),) * 2
    assert alone.even.pixel_size_angstrom == pytest.approx(0.83 * upsampling)
