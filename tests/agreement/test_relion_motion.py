"""The halves of a movie add up to the micrograph that RELION's own motion correction makes of it."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile

from cryoplug.formats.mrc import write_mrc
from cryoplug.inputs.movies.gain_of_run import RunGain
from cryoplug.inputs.movies.halves import MovieInput, MovieSummer
from cryoplug.testing.movie_files import eer_file
from cryoplug.workflows.convert.inputs import list_inputs
from cryoplug.workflows.convert.request import ConvertRequest

pytestmark = pytest.mark.skipif(
    not shutil.which("relion_run_motioncorr"), reason="RELION is not on this machine: apt-get install relion"
)
SHAPE = (192, 288)
"""RELION wants even sides also after binning."""
PIXEL_SIZE = 0.7


def relion_project(movie: str, *options: str) -> Path:
    """Let RELION correct the motion of one movie in the working folder; give the STAR file of the job."""
    Path("movies.star").write_text(
        "\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n"
        "_rlnMicrographOriginalPixelSize #3\n_rlnVoltage #4\n_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\n"
        f"o 1 {PIXEL_SIZE} 300 2.7 0.1\n\ndata_movies\n\nloop_\n_rlnMicrographMovieName #1\n_rlnOpticsGroup #2\n{movie} 1\n"
    )
    words = ["relion_run_motioncorr", "--i", "movies.star", "--o", "MotionCorr/job002", "--use_own", "--skip_defect"]
    done = subprocess.run([*words, *options], capture_output=True, text=True, check=False)
    assert Path("MotionCorr/job002/corrected_micrographs.star").is_file(), done.stdout + done.stderr
    return Path("MotionCorr/job002/corrected_micrographs.star")


def halves_of(star: Path, gain: Path | None = None) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Sum the movie of a RELION job; give both halves and their pixel size."""
    (movie,) = list_inputs(ConvertRequest((str(star),), Path("store"), pairs="halves", gain=gain)).pairs
    assert isinstance(movie, MovieInput)
    with ThreadPoolExecutor(2) as pool:
        halves = MovieSummer(RunGain(gain, None), pool).halves(movie)
    even, odd = (half.read_rows(0, half.shape[0]).astype(np.float64) for half in (halves.even, halves.odd))
    return even, odd, halves.even.pixel_size_angstrom


def micrograph() -> np.ndarray:
    (path,) = Path("MotionCorr/job002").rglob("m.mrc")
    return np.asarray(mrcfile.read(path), np.float64)


def difference(image: np.ndarray, reference: np.ndarray, part: float = 1) -> float:
    """Give the largest difference over the deviation of `reference`, of waves up to a part of Nyquist.

    RELION moves frames by turning the phases of their transforms, too; but at Nyquist itself it turns the two waves that
    are one there as if they were not.
    """
    terms = [np.fft.rfft2(image - reference), np.fft.rfft2(reference)]
    ny, nx = image.shape
    fy, fx = np.abs(np.fft.fftfreq(ny))[:, None], np.fft.rfftfreq(nx)[None]
    for found in terms:
        found[(fy >= part / 2) | (fx >= part / 2)] = 0
    error, kept = (np.fft.irfft2(found, s=image.shape) for found in terms)
    return float(np.abs(error).max() / kept.std())


def displacement(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Give how far (y, x) an image lies from a reference, in pixels, by the phases of long waves."""
    product = np.fft.rfft2(image) * np.fft.rfft2(reference).conj()
    fy, fx = np.broadcast_arrays(np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None])
    weight = np.abs(product) * ((np.abs(fy) < 1 / 32) & (fx < 1 / 32))
    waves = np.stack([fy, fx]).reshape(2, -1)
    return -np.linalg.solve(waves * weight.ravel() @ waves.T, waves * weight.ravel() @ np.angle(product).ravel()) / (
        2 * np.pi
    )


def drifting(frames: int = 8, shape: tuple[int, int] = SHAPE, rate: float = 30.0) -> np.ndarray:
    """Counts of a specimen of blobs that drifts by whole pixels, enough for RELION to follow it."""
    rng = np.random.default_rng(5)
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    blobs = np.fft.irfft2(np.fft.rfft2(rng.normal(size=shape)) * np.exp(-((fy**2 + fx**2) / (2 * 0.06**2))), s=shape)
    truth = (1 + 0.3 * blobs / blobs.std()).clip(0.1, None)
    return np.stack([rng.poisson(rate * np.roll(truth, (i, -2 * i), (0, 1))) for i in range(frames)])


@pytest.mark.parametrize("movie", ["m.tif", "m.mrc"])
@pytest.mark.parametrize("gain", ["", "gain.mrc", "gain.tif"])
@pytest.mark.parametrize(("first", "last"), [(1, -1), (2, 6)])
def test_the_halves_add_up_to_relions_micrograph(tmp_path, monkeypatch, movie, gain, first, last):
    monkeypatch.chdir(tmp_path)
    reference = np.random.default_rng(2).uniform(0.7, 1.3, SHAPE).astype(np.float32)
    frames = drifting()
    if gain:
        frames = np.random.default_rng(9).poisson(frames / reference)
        write_mrc(Path("gain.mrc"), reference, pixel_size_angstrom=1)
        tifffile.imwrite("gain.tif", reference[::-1])
    if movie == "m.tif":
        tifffile.imwrite(movie, frames[:, ::-1].astype(np.uint16), photometric="minisblack", compression="lzw")
    else:
        with mrcfile.new(movie) as file:
            file.set_data(frames.astype(np.int16))
            file.set_image_stack()
    words = ["--first_frame_sum", str(first), "--last_frame_sum", str(last), *(["--gainref", gain] if gain else [])]
    even, odd, size = halves_of(relion_project(movie, *words), Path(gain) if gain else None)
    assert size == pytest.approx(PIXEL_SIZE)
    expected = micrograph()
    assert even.shape == expected.shape
    assert difference(even + odd, expected) < 1e-4


@pytest.mark.parametrize("binning", ["2", "1.5"])
def test_halves_of_binned_micrographs_are_on_their_grid(tmp_path, monkeypatch, binning):
    """Super-resolution movies: RELION cuts the transform of the sum, and so are the halves."""
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("m.tif", drifting()[:, ::-1].astype(np.uint16), photometric="minisblack")
    even, odd, size = halves_of(relion_project("m.tif", "--bin_factor", binning))
    expected = micrograph()
    assert even.shape == odd.shape == expected.shape == (int(SHAPE[0] / float(binning)), int(SHAPE[1] / float(binning)))
    assert size == pytest.approx(PIXEL_SIZE * float(binning))
    assert difference(even + odd, expected) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("upsampling", "binning", "gain"), [(1, 1, "ref.gain"), (1, 1, "ref.tif"), (2, 2, "")])
def test_the_halves_of_an_eer_movie_add_up_to_relions_micrograph(tmp_path, monkeypatch, upsampling, binning, gain):
    monkeypatch.chdir(tmp_path)
    side, rng = 4096, np.random.default_rng(3)
    counts = drifting(4, (256, 256), rate=3.0)
    frames = []
    for frame in counts:  # a small field of view, electrons only there; two raw frames a group
        y, x = np.nonzero(frame)
        frames += [list(zip((1000 + y).tolist(), (2000 + x).tolist(), strict=True))[k::2] for k in range(2)]
    eer_file(Path("m.eer"), frames, side=side, seed=1)
    if gain:
        reference = rng.choice([0.5, 1.0, 2.0], (side, side)).astype(np.float32)
        tifffile.imwrite(gain, reference)
    words = ["--eer_grouping", "2", "--eer_upsampling", str(upsampling), "--bin_factor", str(binning)]
    words += ["--first_frame_sum", "2", "--j", "2", *(["--gainref", gain] if gain else [])]
    even, odd, size = halves_of(relion_project("m.eer", *words), Path(gain) if gain else None)
    expected = micrograph()
    assert even.shape == expected.shape
    assert size == pytest.approx(PIXEL_SIZE * binning)
    if binning == 1:
        assert difference(even + odd, expected) < 5e-4
    else:
        # RELION bins 8192 x 8192 by cutting the transform; here electrons are counted on 4096 x 4096, four times as many a pixel.
        assert np.abs(displacement(even + odd, expected)).max() < 0.02
        assert (even + odd).sum() / 4 == pytest.approx(expected.sum(), rel=1e-3)
