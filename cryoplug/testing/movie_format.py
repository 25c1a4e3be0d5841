"""The laws of a file format whose files may hold several images: any frame in any order, and no movie taken for a micrograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from cryoplug.errors import FormatError, ShapeError
from cryoplug.testing.files import cuts
from cryoplug.testing.format import MAX_MEMORY_BYTES, FormatContract, check_rows, refusal
from cryoplug.testing.resources import holds, limited_memory


class MovieFormatContract(FormatContract):
    """Laws of a format whose files may hold several images; a subclass defines `write_movie`."""

    knows_movies: ClassVar[bool] = True
    frames: ClassVar[int] = 5
    """Frames of the test movies."""

    def write_movie(self, path: Path, frames: np.ndarray) -> None:
        """Write a file with several images.

        Parameters
        ----------
        path
            Its ending is one of ``spec.extensions``.
        frames
            ``(n, y, x)`` of type `dtype`; n may be 1.
        """
        raise NotImplementedError(f"{type(self).__name__}.write_movie: say how a movie of {self.spec.id} is written")

    def write(self, path: Path, pixels: np.ndarray) -> None:
        """Write a movie of one frame."""
        self.write_movie(path, pixels[None])

    def test_frames_are_those_that_were_written(self, tmp_path: Path) -> None:
        """Read in any order, as whole frames and as rows of a frame."""
        path, frames = self._movie(tmp_path)
        order = [*reversed(range(len(frames))), 1, 0, 1]
        with self._open_movie(path) as movie:
            assert (movie.path, movie.frame_shape, movie.frame_count) == (path, frames.shape[1:], len(frames))
            assert isinstance(movie.dtype, np.dtype)
            for index in order:
                check_rows(movie.read_frame(index), frames[index])
        for index in order:
            with self._open_movie(path).frame(index) as source:
                assert source.shape == frames.shape[1:] and source.path == path
                check_rows(source.read_rows(2, 7), frames[index, 2:7])
            assert not holds(path), f"a frame was closed, but its file is still held: {holds(path)}"

    def test_frames_that_are_not_there_are_refused(self, tmp_path: Path) -> None:
        """With `ShapeError`."""
        path, frames = self._movie(tmp_path)
        with self._open_movie(path) as movie:
            for index in (-1, len(frames)):
                with pytest.raises(ShapeError):
                    movie.read_frame(index)

    def test_a_movie_is_not_taken_for_a_micrograph(self, tmp_path: Path) -> None:
        """Opening it as one image is refused, and its file closed."""
        path, _ = self._movie(tmp_path)
        with pytest.raises(FormatError) as refused:
            self._open(path)
        assert str(path) in str(refused.value)
        assert not holds(path), f"refused, but the file is still held: {holds(path)}"

    def test_an_image_is_a_movie_of_one_frame(self, tmp_path: Path) -> None:
        """So that everything can be read as a movie."""
        path, pixels = self._file(tmp_path)
        with self._open_movie(path) as movie:
            assert movie.frame_count == 1
            check_rows(movie.read_frame(0), pixels)
        assert not holds(path), f"after close, the file is still held: {holds(path)}"

    def test_a_cut_movie_is_refused_or_gives_its_frames(self, tmp_path: Path) -> None:
        """As for a single image: never other pixels, never other errors."""
        path, frames = self._movie(tmp_path)
        whole = path.read_bytes()
        for length in cuts(len(whole)):
            path.write_bytes(whole[:length])
            with (
                limited_memory(MAX_MEMORY_BYTES, f"a movie cut to {length} bytes"),
                refusal(path),
                self._open_movie(path) as movie,
            ):
                for index in range(movie.frame_count):
                    assert np.array_equal(movie.read_frame(index), frames[index]), f"cut to {length}: other pixels"

    def _movie(self, folder: Path) -> tuple[Path, np.ndarray]:
        frames = self.pixels((self.frames, *self.shapes[0]))
        path = folder / f"movie{self.spec.extensions[0]}"
        self.write_movie(path, frames)
        return path, frames

    def _is_readable(self, path: Path) -> bool:
        with refusal(path), self._open_movie(path) as movie:
            return bool(movie.read_frame(0).size)
        return False

    def _open_movie(self, path: Path) -> Any:
        assert self.spec.open_movie is not None, f"{self.spec.id} has no open_movie: inherit FormatContract"
        return self.spec.open_movie(path)
