"""TIFF images and movies, and EER movies, agree with tifffile; what is odd is named."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cryoplug.core.micrograph import row_bands
from cryoplug.errors import FormatError
from cryoplug.formats.registry import format_of, formats, open_micrograph, open_movie
from cryoplug.testing import MovieFormatContract

CENTIMETRE = 1e8


def frames_of(path: Path) -> np.ndarray:
    with open_movie(path) as movie:
        return np.stack([movie.read_frame(index) for index in range(movie.frame_count)])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 32)}, {"rowsperstrip": 7}])
def test_images_in_strips_and_tiles(tmp_path: Path, dtype: str, compression: str | None, layout: dict) -> None:
    pixels = np.random.default_rng(0).integers(0, 99, (50, 41)).astype(dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, compression=compression, **layout)
    with open_micrograph(path) as source:
        assert (source.shape, source.dtype, source.pixel_size_angstrom) == ((50, 41), np.dtype(dtype), None)
        assert np.array_equal(np.concatenate([rows for _, rows in row_bands(source, band_rows=16)]), pixels)
    assert format_of(path).validate(path) == []


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_movies_of_many_pages(tmp_path: Path, order: str, big: bool) -> None:
    movie = np.random.default_rng(0).integers(0, 9, (5, 30, 20)).astype(f"{order}u2")
    path = tmp_path / "m.tif"
    with tifffile.TiffWriter(path, byteorder=order, bigtiff=big) as stream:
        for page in movie:
            stream.write(page, compression="lzw", contiguous=False)
    assert np.array_equal(frames_of(path), movie)
    with open_micrograph(path, section=3) as source:
        assert np.array_equal(source.read_rows(0, 30), movie[2])
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


def test_real_files_agree_with_tifffile(shared_data: Path) -> None:
    for name, size in (("micrographs/KLH.tif", None), ("movies/TVIPS_bin4.tif", 14.208)):
        path = shared_data / name
        assert np.array_equal(frames_of(path)[0], tifffile.imread(path))
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
        assert np.array_equal(source.read_rows(0, 20), pixels)
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


def eer_file(path: Path, electrons: list[list[tuple[int, int]]], side: int = 64) -> Path:
    """Write an EER movie by its published layout: runs of 7 bits, 2 + 2 bits of the place within the pixel."""
    strips = []
    for frame in electrons:
        bits, last = [], 0
        for place in sorted(y * side + x for y, x in frame):
            skip, last = place - last, place + 1
            while skip >= 127:
                bits += [(127, 7)]
                skip -= 127
            bits += [(skip, 7), (0, 4)]
        skip = side * side - last
        while skip >= 127:
            bits += [(127, 7)]
            skip -= 127
        bits += [(skip, 7), (0, 4)]
        number = total = 0
        for value, width in bits:
            number |= value << total
            total += width
        strips.append(number.to_bytes((total + 15) // 16 * 2, "little"))  # decoders want whole words
    xml = b'<metadata><item name="sensorPixelSize.width" unit="m">9.5e-11</item></metadata>\0'
    body = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    places = []
    for payload in (xml, *strips):
        places.append(len(body))
        body += payload
    link = 8
    for strip, place in zip(strips, places[1:], strict=True):
        struct.pack_into("<Q", body, link, len(body))
        tags = [
            (256, 4, 1, side),
            (257, 4, 1, side),
            (259, 3, 1, 65001),
            (262, 3, 1, 1),
            (273, 16, 1, place),
            (278, 4, 1, side),
            (279, 16, 1, len(strip)),
            (65001, 7, len(xml), places[0]),
        ]
        body += struct.pack("<Q", len(tags))
        for tag in tags:
            body += struct.pack("<HHQQ", *tag)
        link = len(body)
        body += bytes(8)
    path.write_bytes(bytes(body))
    return path


def test_frames_of_an_eer_movie_hold_the_electrons(tmp_path: Path) -> None:
    electrons = [[(0, 5), (3, 60), (63, 63)], [(10, 10)]]
    path = eer_file(tmp_path / "m.eer", electrons)
    found = frames_of(path)
    assert [sorted(zip(*np.nonzero(frame), strict=True)) for frame in found] == electrons
    assert found.max() == 1
    assert format_of(path).id == "eer"
    with open_movie(path) as movie:
        assert movie.pixel_size_angstrom == pytest.approx(0.95)


class TestTiff(MovieFormatContract):
    spec = formats()["tiff"]
    pixel_size_angstrom = 1.25
    shares_first_bytes_with = ("eer",)
    compression: str | None = "lzw"

    def write_movie(self, path: Path, frames: np.ndarray) -> None:
        tags = {"resolution": (CENTIMETRE / 1.25, CENTIMETRE / 1.25), "resolutionunit": "CENTIMETER"}
        with tifffile.TiffWriter(path) as stream:
            for frame in frames:
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
