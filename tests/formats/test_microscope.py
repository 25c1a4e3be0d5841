"""DM4 and SER files through ncempy."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from cryoplug.errors import FormatError
from cryoplug.formats.registry import format_of, formats, open_micrograph, open_movie
from cryoplug.testing import MovieFormatContract
from cryoplug.testing.movie_files import dm_file, ser_file

DM4 = "movies/dmTest_3D_int16_64,65,66.dm4"


def test_a_dm4_series_is_read_image_by_image(shared_data: Path) -> None:
    dm = pytest.importorskip("ncempy.io.dm")
    path = shared_data / DM4
    stored = dm.dmReader(path)["data"]
    with open_movie(path) as movie:
        assert (movie.frame_count, movie.frame_shape) == stored.shape[:1] + stored.shape[1:][:0] + (stored.shape[1:],)
        assert all(np.array_equal(movie.read_frame(index), stored[index, ::-1]) for index in range(len(stored)))
        assert movie.pixel_size_angstrom == pytest.approx(0.02)  # 2 pm in x
    with pytest.raises(FormatError, match=f"{len(stored)} sections"):
        open_micrograph(path)
    assert [found.severity for found in format_of(path).validate(path)] == ["note"]


def test_a_cut_dm4_is_refused(tmp_path: Path, shared_data: Path) -> None:
    pytest.importorskip("ncempy")
    whole = (shared_data / DM4).read_bytes()
    for length in (16, 300, 5000, 200_000):
        path = tmp_path / "a.dm4"
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=f"^{path}: "):
            open_movie(path)


def test_damaged_tags_of_a_dm4_are_no_bug(tmp_path: Path, shared_data: Path) -> None:
    whole = (shared_data / DM4).read_bytes()
    path = tmp_path / "a.dm4"
    path.write_bytes(whole.replace(b"%%%%", b"%%%x", 1))
    with pytest.raises(FormatError, match=f"^{path}: damaged, or not in the format"):
        open_movie(path)


def test_a_ser_series_is_read_image_by_image(tmp_path: Path) -> None:
    pytest.importorskip("ncempy")
    frames = np.random.default_rng(0).integers(0, 999, (3, 5, 7)).astype(np.uint16)
    path = ser_file(tmp_path / "a.ser", frames)
    with open_movie(path) as movie:
        assert movie.pixel_size_angstrom == pytest.approx(2.0)
        assert np.array_equal(np.stack([movie.read_frame(index) for index in range(3)]), frames)
    for length in (10, 30, 60, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(FormatError, match=f"^{path}: "), open_movie(path) as movie:
            movie.read_frame(2)


@pytest.mark.parametrize("name", ["a.dm4", "a.ser"])
def test_without_ncempy_the_way_to_get_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in ("ncempy", "ncempy.io", "ncempy.io.dm", "ncempy.io.ser"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).write_bytes(b"\0\0\0\4" + bytes(60))
    with pytest.raises(FormatError, match=r"pip install 'cryoplug\[dm\]'"):
        open_movie(tmp_path / name)


class TestDm(MovieFormatContract):
    spec = formats()["dm"]
    pixel_size_angstrom = 1.25
    test_opening_reads_no_pixels = None  # ncempy tells the type of a pixel only with the first image

    def write_movie(self, path: Path, frames: np.ndarray) -> None:
        dm_file(path, frames[:, ::-1])


class TestSer(MovieFormatContract):
    spec = formats()["ser"]
    dtype = np.uint16
    pixel_size_angstrom = 2.0
    test_opening_reads_no_pixels = None  # ncempy tells the size of an image only with the first one

    def write_movie(self, path: Path, frames: np.ndarray) -> None:
        ser_file(path, frames)
