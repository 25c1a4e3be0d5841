"""TIFF images and movies, and EER movies, agree with tifffile; what is odd is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from cryoplug.core.micrograph import row_bands
from cryoplug.errors import FormatError
from cryoplug.formats.registry import format_of, formats, open_micrograph, open_movie
from cryoplug.testing import MovieFormatContract
from cryoplug.testing.movie_files import eer_file

CENTIMETRE = 1e8


def frames_of(path: Path) -> np.ndarray:
    with open_movie(path) as movie:
        return np.stack([movie.read_frame(index) for index in range(movie.frame_count)])


def upside_down(pixels: np.ndarray) -> np.ndarray:
    """Turn what a TIFF stores, upper row first, to the order of an MRC; of one image or many."""
    return pixels[..., ::-1, :]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 32)}, {"rowsperstrip": 7}])
def test_images_in_strips_and_tiles(tmp_path: Path, dtype: str, compression: str | None, layout: dict) -> None:
    pixels = np.random.default_rng(0).integers(0, 99, (50, 41)).astype(dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, compression=compression, **layout)
    with open_micrograph(path) as source:
        assert (source.shape, source.dtype, source.pixel_size_angstrom) == ((50, 41), np.dtype(dtype), None)
        assert np.array_equal(
            np.concatenate([rows for _, rows in row_bands(source, band_rows=16)]), upside_down(pixels)
        )
    assert format_of(path).validate(path) == []


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_movies_of_many_pages(tmp_path: Path, order: str, big: bool) -> None:
    movie = np.random.default_rng(0).integers(0, 9, (5, 30, 20)).astype(f"{order}u2")
    path = tmp_path / "m.tif"
    with tifffile.TiffWriter(path, byteorder=order, bigtiff=big) as stream:
        for page in movie:
            stream.write(page, compression="lzw", contiguous=False)
    assert np.array_equal(frames_of(path), upside_down(movie))
    with open_micrograph(path, section=3) as source:
        assert np.array_equal(source.read_rows(0, 30), upside_down(movie[2]))
    with pytest.raises(FormatError, match="5 sections: a stack, movie or volume"):
        open_micrograph(path)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"resolution": (CENTIMETRE / 1.25, CENTIMETRE / 1.25), "resolutionunit": "CENTIMETER"}, 1.25),
        ({"resolution": (2.54e8 / 0.5, 2.54e8 / 0.5), "resolutionunit": "INCH"}, 0.5),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (2, 2), "resolutionunit": "NONE"}, None),
        ({"resolution": (5, 5), "imagej": True, "metadata": {"unit": "nm"}}, 2.0),
        # ImageJ escapes what is not ASCII.
        ({"resolution": (0.5, 0.5), "imagej": True, "metadata": {"unit": "\\u00C5"}}, 2.0),
        ({"resolution": (5000, 5000), "imagej": True, "metadata": {"unit": "\\u00B5m"}}, 2.0),
        ({"resolution": (1, 1), "imagej": True, "metadata": {"unit": "pixel"}}, None),
    ],
)
def test_the_pixel_size_comes_from_tags_when_it_can_be_one(tmp_path: Path, tags: dict, expected: float | None) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.eye(8, dtype=np.uint8), **tags)
    with open_micrograph(tmp_path / "a.tif") as source:
        assert source.pixel_size_angstrom == (None if expected is None else pytest.approx(expected, rel=1e-5))


def test_what_the_tags_say_beyond_grey_values_of_square_pixels_is_told(tmp_path: Path) -> None:
    uneven = {"resolution": (CENTIMETRE / 1.5, CENTIMETRE / 3), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "a.tif", np.eye(8, dtype=np.uint8), **uneven)
    with open_micrograph(tmp_path / "a.tif") as source:
        assert source.pixel_size_angstrom == pytest.approx(1.5)
        assert source.warnings == ("pixel size differs by axis: x 1.5, y 3 A; x is used",)
    tifffile.imwrite(
        tmp_path / "b.tif", np.eye(8, dtype=np.uint8), photometric="palette", colormap=np.zeros((3, 256), "u2")
    )
    with open_micrograph(tmp_path / "b.tif") as source:
        assert "a colour of its own" in source.warnings[0]
        assert np.array_equal(source.read_rows(0, 8), upside_down(np.eye(8)))


def test_real_files_agree_with_tifffile(shared_data: Path) -> None:
    for name, size in (("micrographs/KLH.tif", None), ("movies/TVIPS_bin4.tif", 14.208)):
        path = shared_data / name
        assert np.array_equal(frames_of(path)[0], upside_down(tifffile.imread(path)))
        with open_micrograph(path) as source:
            assert source.pixel_size_angstrom == (None if size is None else pytest.approx(size, rel=1e-4))


def test_pages_of_another_size_are_left_out(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as stream:
        for shape in ((20, 20), (5, 5), (20, 20)):
            stream.write(np.ones(shape, np.uint8), contiguous=False)
    with open_movie(tmp_path / "a.tif") as movie:
        assert movie.frame_count == 2
        assert movie.warnings == ("1 of 3 images have another size or type, and are left out",)


def test_a_small_picture_in_front_is_not_taken_for_the_micrograph(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 9, (20, 30)).astype(np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as stream:
        stream.write(pixels[::4, ::4].astype(np.uint8), contiguous=False)
        stream.write(pixels, contiguous=False)
    with open_micrograph(tmp_path / "a.tif") as source:
        assert np.array_equal(source.read_rows(0, 20), upside_down(pixels))
        assert source.warnings == ("1 of 2 images have another size or type, and are left out",)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.ones((8, 8, 3), np.uint8), "no colour"),
        (np.ones((8, 8), np.complex64), "type complex64; allowed"),
    ],
)
def test_no_colour_and_no_transforms(tmp_path: Path, pixels: np.ndarray, message: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    with pytest.raises(FormatError, match=message):
        open_micrograph(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_a_cut_file_is_refused(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8), compression=compression
    )
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match=f"^{path}: .*(truncated|cannot be decoded)"):
        frames_of(path)
    assert [found.severity for found in format_of(path).validate(path)] == ["error"]


def test_a_tiny_file_cannot_claim_a_huge_image(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((9000, 9000), np.uint8), compression="zlib")
    with pytest.raises(FormatError, match="claims 81000000 bytes out of"):
        open_micrograph(path)


def test_frames_of_an_eer_movie_hold_the_electrons(tmp_path: Path) -> None:
    electrons = [[(0, 5), (3, 60), (63, 63)], [(10, 10)]]
    path = eer_file(tmp_path / "m.eer", electrons)
    found = frames_of(path)
    assert [sorted(zip(*np.nonzero(frame), strict=True)) for frame in found] == electrons
    assert found.max() == 1
    assert format_of(path).id == "eer"
    with open_movie(path) as movie:
        assert movie.pixel_size_angstrom == pytest.approx(0.95)


K2, K3 = (7420, 7676), (8184, 11520)


@pytest.mark.parametrize(
    ("shape", "dtype"), [(K2, np.uint8), (K2, np.int8), (K2[::-1], np.uint8), (K3, np.uint8), (K3[::-1], np.uint8)]
)
def test_super_resolution_frames_with_two_counts_in_a_byte(tmp_path: Path, shape: tuple[int, int], dtype: type) -> None:
    """SerialEM packs them so without a tag; IMOD and RELION tell them by the size of the image."""
    counts = np.tile(np.random.default_rng(2).integers(0, 16, (32, 32)).astype(np.uint8), (shape[0] // 32 + 1, 512))
    counts = np.ascontiguousarray(counts[: shape[0], : shape[1]])
    path = tmp_path / "m.tif"
    with tifffile.TiffWriter(path) as stream:
        packed = (counts[:, 0::2] | counts[:, 1::2] << 4).view(dtype)
        stream.write(packed, compression="lzw", photometric="minisblack", contiguous=False)
    with open_movie(path) as movie:
        assert (movie.frame_count, movie.frame_shape, movie.warnings) == (1, shape, ())
        assert np.array_equal(movie.read_frame(0), upside_down(counts))


@pytest.mark.parametrize(
    ("shape", "dtype"), [((7420, 3838), np.uint16), ((7420, 3836), np.uint8), ((3838, 3710), np.uint8)]
)
def test_images_of_other_sizes_and_types_hold_one_number_a_pixel(tmp_path: Path, shape, dtype) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.full(shape, 0x21, dtype), rowsperstrip=100)
    with open_movie(tmp_path / "m.tif") as movie:
        assert movie.frame_shape == shape
        assert movie.read_frame(0)[0, 0] == 0x21


def test_four_bits_a_sample_that_the_tags_tell_are_read_as_they_are(tmp_path: Path) -> None:
    counts = np.random.default_rng(2).integers(0, 16, (20, 31)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "m.tif", counts, bitspersample=4)
    assert np.array_equal(frames_of(tmp_path / "m.tif")[0], upside_down(counts))


@pytest.mark.parametrize("orientation", [1, 4, 6])
def test_the_tag_of_orientation_is_passed_over_as_in_relion(tmp_path: Path, orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 99, (5, 8)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "m.tif", pixels, extratags=[(274, "H", 1, orientation, True)])
    with open_micrograph(tmp_path / "m.tif") as source:
        assert np.array_equal(source.read_rows(0, 5), upside_down(pixels))
        assert [text.split(";")[0] for text in source.warnings] == (
            [] if orientation == 1 else [f"the tag Orientation is {orientation}"]
        )


class TestTiff(MovieFormatContract):
    spec = formats()["tiff"]
    pixel_size_angstrom = 1.25
    shares_first_bytes_with = ("eer",)
    compression: str | None = "lzw"

    def write_movie(self, path: Path, frames: np.ndarray) -> None:
        tags = {"resolution": (CENTIMETRE / 1.25, CENTIMETRE / 1.25), "resolutionunit": "CENTIMETER"}
        with tifffile.TiffWriter(path) as stream:
            for frame in upside_down(frames):
                stream.write(frame, compression=self.compression, contiguous=False, **tags)


class TestTiffWithoutCompression(TestTiff):
    dtype = np.int16
    compression = None


class TestEer(MovieFormatContract):
    spec = formats()["eer"]
    shapes = ((64, 64),)
    large_shape = (64, 64)
    dtype = np.uint8
    pixel_size_angstrom = 0.95
    shares_first_bytes_with = ("tiff",)

    def pixels(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng(shape).integers(0, 2, shape).astype(np.uint8)

    def write_movie(self, path: Path, frames: np.ndarray) -> None:
        eer_file(path, [np.argwhere(frame).tolist() for frame in frames], side=frames.shape[1])
