"""What cryoplug reads and writes agrees with mrcfile, tifffile and starfile, in both directions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import starfile
import tifffile

from cryoplug.cli.main import run as cryoplug
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.registry import open_micrograph, open_movie
from cryoplug.models.checkpoint import Checkpoint, save_checkpoint
from cryoplug.models.registry import model_spec

PIXEL_SIZE = 1.25
MODES = ["int8", "int16", "uint16", "float16", "float32"]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the working folder, with a checkpoint in it."""
    monkeypatch.chdir(tmp_path)
    weights = {name: t.numpy() for name, t in model_spec("cryo_cnn").build(seed=1).state_dict().items()}
    save_checkpoint(Path("model/epoch_0001"), Checkpoint("cryo_cnn", weights, normalize="zscore"), 0.5)
    return "model"


def pixels_of(path: Path, section: int | None = None) -> np.ndarray:
    with open_micrograph(path, section=section) as source:
        return source.read_rows(0, source.shape[0])


def random_pixels(dtype: str, shape: tuple[int, ...] = (70, 90)) -> np.ndarray:
    return np.random.default_rng(4).integers(-100 if dtype[0] != "u" else 0, 100, shape).astype(dtype)


@pytest.mark.parametrize("dtype", MODES)
@pytest.mark.parametrize("ending", ["mrc", "mrc.gz", "mrc.bz2"])
def test_a_file_of_mrcfile_gives_its_pixels_and_pixel_size(tmp_path: Path, dtype: str, ending: str) -> None:
    pixels = random_pixels(dtype)
    path = tmp_path / f"a.{ending}"
    compression = {"mrc": None, "mrc.gz": "gzip", "mrc.bz2": "bzip2"}[ending]
    with mrcfile.new(path, compression=compression) as file:
        file.set_data(pixels)
        file.voxel_size = PIXEL_SIZE
    with open_micrograph(path) as source:
        assert source.shape == pixels.shape
        assert source.pixel_size_angstrom == pytest.approx(PIXEL_SIZE)
    assert np.array_equal(pixels_of(path), pixels.astype(np.float32))


@pytest.mark.parametrize("dtype", MODES)
def test_a_stack_of_mrcfile_gives_its_sections(tmp_path: Path, dtype: str) -> None:
    frames = random_pixels(dtype, (5, 20, 30))
    path = tmp_path / "a.mrcs"
    with mrcfile.new(path) as file:
        file.set_data(frames)
        file.set_image_stack()
    with open_movie(path) as movie:
        assert (movie.frame_count, movie.frame_shape) == (5, (20, 30))
        assert all(np.array_equal(movie.read_frame(index), frames[index].astype(np.float32)) for index in range(5))
    assert np.array_equal(pixels_of(path, section=4), frames[3].astype(np.float32))


@pytest.mark.parametrize("options", [(), ("--float16",)])
@pytest.mark.parametrize("dtype", MODES)
def test_mrcfile_finds_a_denoised_micrograph_valid(model: str, dtype: str, options: tuple[str, ...]) -> None:
    with mrcfile.new("a.mrc") as file:
        file.set_data(random_pixels(dtype))
        file.voxel_size = PIXEL_SIZE
        file.set_extended_header(np.zeros(64, "V1"))
        file.header.exttyp = b"MRCO"
        file.add_label("written by another program")
    assert cryoplug(["denoise", "a.mrc", "--checkpoint", model, "-o", "out", "--device", "cpu", *options]) == 0
    if not options:  # mrcfile adds up float16 pixels as float16, which overflows
        assert mrcfile.validate("out/a.mrc")
    with mrcfile.open("out/a.mrc") as file:
        assert file.header.mode == (12 if options else 2)
        assert float(file.voxel_size.x) == pytest.approx(PIXEL_SIZE)
        assert file.extended_header.size == 64
        labels = file.get_labels()
        assert "written by another program" in labels and any("cryoplug" in label for label in labels)
        stored = np.asarray(file.data, np.float64)
        found = [float(file.header[name]) for name in ("dmin", "dmax", "dmean", "rms")]
        assert found == pytest.approx([stored.min(), stored.max(), stored.mean(), stored.std()], rel=1e-4)
    assert np.array_equal(pixels_of(Path("out/a.mrc")), stored.astype(np.float32))


def test_mrcfile_reads_what_write_mrc_wrote(tmp_path: Path) -> None:
    pixels = random_pixels("float32") + np.float32(0.1)
    write_mrc(tmp_path / "a.mrc", pixels, pixel_size_angstrom=PIXEL_SIZE)
    assert mrcfile.validate(tmp_path / "a.mrc")
    assert np.array_equal(mrcfile.read(tmp_path / "a.mrc"), pixels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile": (32, 48)},
        {"compression": "lzw"},
        {"compression": "zlib", "predictor": True},
        {"bigtiff": True, "byteorder": ">"},
    ],
    ids=str,
)
def test_a_tiff_of_tifffile_is_read_lowest_row_first(tmp_path: Path, dtype: str, options: dict[str, Any]) -> None:
    pixels = random_pixels(dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, **options)
    assert np.array_equal(pixels_of(path), tifffile.imread(path)[::-1].astype(np.float32))


def test_a_tiff_is_denoised_as_the_mrc_file_of_the_same_micrograph(model: str) -> None:
    pixels = random_pixels("float32")
    tifffile.imwrite("a.tif", pixels[::-1])
    write_mrc(Path("b.mrc"), pixels)
    assert cryoplug(["denoise", "a.tif", "b.mrc", "--checkpoint", model, "-o", "out", "--device", "cpu"]) == 0
    assert np.array_equal(mrcfile.read("out/a.mrc"), mrcfile.read("out/b.mrc"))


def micrographs(count: int) -> list[str]:
    Path("mics").mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).normal(40, 3, (70, 90)).astype(np.float32)
        write_mrc(Path(f"mics/m {number}.mrc"), pixels, pixel_size_angstrom=PIXEL_SIZE)
    return [f"mics/m {number}.mrc" for number in range(count)]


def test_starfile_reads_the_star_file_of_denoise(model: str) -> None:
    import pandas

    names = micrographs(3)
    optics = pandas.DataFrame({"rlnOpticsGroupName": ["o1"], "rlnOpticsGroup": [1], "rlnVoltage": [300.0]})
    table = pandas.DataFrame(
        {"rlnMicrographName": names, "rlnOpticsGroup": [1] * 3, "rlnCtfFigureOfMerit": [0.1, 0.2, 0.3]}
    )
    starfile.write({"optics": optics, "micrographs": table}, "in.star")
    words = ["denoise", "in.star", "--checkpoint", model, "-o", "out", "--star", "out/m.star", "--device", "cpu"]
    assert cryoplug(words) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas, about starfile's way to read numbers
        found = starfile.read("out/m.star", always_dict=True)
    assert list(found) == ["optics", "micrographs"]
    pandas.testing.assert_frame_equal(found["optics"], optics)
    assert list(found["micrographs"].columns) == [*table.columns, "cryoplugMicrographNameRaw"]
    assert list(found["micrographs"]["cryoplugMicrographNameRaw"]) == names
    assert list(found["micrographs"]["rlnCtfFigureOfMerit"]) == [0.1, 0.2, 0.3]
    assert all(mrcfile.validate(name) for name in found["micrographs"]["rlnMicrographName"])


def test_starfile_reads_a_star_file_made_from_files(model: str) -> None:
    names = micrographs(2)
    words = ["denoise", "mics", "--checkpoint", model, "-o", "out", "--star", "out/m.star", "--device", "cpu"]
    assert cryoplug(words) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = starfile.read("out/m.star", always_dict=True)
    assert list(found["micrographs"]["cryoplugMicrographNameRaw"]) == names
    assert list(found["micrographs"]["rlnMicrographName"]) == [f"out/m {number}.mrc" for number in range(2)]
    assert [float(size) for size in found["optics"]["rlnMicrographPixelSize"]] == [PIXEL_SIZE]
