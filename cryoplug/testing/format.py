"""The laws of a file format: header before pixels, any window of rows, and no claim believed that the file cannot hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from cryoplug.core.micrograph import ImageF32, MicrographSource
from cryoplug.core.results import Finding
from cryoplug.errors import FormatError, ShapeError
from cryoplug.formats.mrc import write_mrc
from cryoplug.formats.registry import FormatSpec, format_of
from cryoplug.testing.files import FOREIGN_HEADS, HEAD_BYTES, cuts, damaged
from cryoplug.testing.resources import bytes_read, holds, limited_memory

MAX_MEMORY_BYTES = 48 << 20
"""Most memory that refusing a damaged file of a few kilobytes may take."""
MAX_HEADER_BYTES = 64 << 10


class FormatContract:
    """Laws of a format of single images; for a format with movies, use `cryoplug.testing.MovieFormatContract`.

    A subclass sets `spec` and defines `write`. Everything else has a default that suits most formats.
    """

    spec: FormatSpec
    """The format."""
    shapes: ClassVar[tuple[tuple[int, int], ...]] = ((37, 23), (1, 1), (3, 300), (64, 1))
    """Sizes ``(y, x)`` of the test images; most laws use the first."""
    large_shape: ClassVar[tuple[int, int]] = (700, 600)
    """A size whose pixels take much more than the header."""
    dtype: ClassVar[Any] = np.float32
    """Type of the pixels for `write`; they are whole numbers from 1 to 100, unless `pixels` gives others."""
    pixel_size_angstrom: ClassVar[float | None] = None
    """Pixel size in the files that `write` makes; None if they have none."""
    knows_movies: ClassVar[bool] = False
    """Whether the laws of movies are kept, too; `MovieFormatContract` sets it."""
    shares_first_bytes_with: ClassVar[tuple[str, ...]] = ()
    """Other formats with the same first bytes (names in `cryoplug.testing.files.FOREIGN_HEADS`, or ``mrc``)."""

    def write(self, path: Path, pixels: np.ndarray) -> None:
        """Write a file of the format; the laws read it back.

        Parameters
        ----------
        path
            Its ending is one of ``spec.extensions``.
        pixels
            ``(y, x)`` of type `dtype`; row 0 is the first row that `read_rows` must give.
        """
        raise NotImplementedError(f"{type(self).__name__}.write: say how a file of {self.spec.id} is written")

    def pixels(self, shape: tuple[int, ...]) -> np.ndarray:
        """Make the pixels of a test image, which the format can hold exactly; with two pixels or more they must differ."""
        return np.random.default_rng(shape).integers(1, 101, shape).astype(self.dtype)

    # Laws of a whole file

    def test_the_header_tells_what_the_pixels_are(self, tmp_path: Path) -> None:
        """Opening gives path, shape, type and pixel size, as plain Python values."""
        for shape in self.shapes:
            path, _ = self._file(tmp_path, shape)
            with self._open(path) as source:
                assert source.path == path
                assert source.shape == shape and [type(side) for side in source.shape] == [int, int], (
                    f"shape {source.shape!r}; it must be {shape} as (y, x), a tuple of two int"
                )
                assert isinstance(source.dtype, np.dtype)
                assert all(isinstance(text, str) for text in source.warnings)

    def test_the_pixel_size_is_that_of_the_file(self, tmp_path: Path) -> None:
        """In angstrom, and None where the file says nothing."""
        path, _ = self._file(tmp_path)
        with self._open(path) as source:
            found = source.pixel_size_angstrom
        if self.pixel_size_angstrom is None:
            assert found is None, f"pixel size {found} A, but the file says nothing: it must be None"
        else:
            assert found == pytest.approx(self.pixel_size_angstrom, rel=1e-4), "pixel size in angstrom"

    def test_opening_reads_no_pixels(self, tmp_path: Path) -> None:
        """So that listing a folder of thousands of micrographs reads only headers."""
        path, _ = self._file(tmp_path, self.large_shape)
        with self._open(path):
            pass  # what is imported by the first opening does not count
        before = bytes_read()
        source = self._open(path)
        read = bytes_read() - before
        source.close()
        size = path.stat().st_size
        assert read <= MAX_HEADER_BYTES + size // 16, f"opening read {read} of {size} bytes; the header must be enough"

    def test_rows_are_those_that_were_written(self, tmp_path: Path) -> None:
        """As float32, C-contiguous, in native byte order, and as a new array each time."""
        for shape in self.shapes:
            path, pixels = self._file(tmp_path, shape)
            with self._open(path) as source:
                rows = source.read_rows(0, shape[0])
                check_rows(rows, pixels)
                rows += 1
                check_rows(source.read_rows(0, shape[0]), pixels)

    def test_rows_in_any_windows_are_rows_of_the_whole(self, tmp_path: Path) -> None:
        """In any order, overlapping, one by one, none at all."""
        random = np.random.default_rng(0)
        for shape in self.shapes:
            path, pixels = self._file(tmp_path, shape)
            height = shape[0]
            windows = [(height, height), (height - 1, height), (0, 1), (0, 0)]
            windows += [tuple(sorted(random.integers(0, height + 1, 2).tolist())) for _ in range(20)]
            with self._open(path) as source:
                for start, stop in windows:
                    check_rows(source.read_rows(start, stop), pixels[start:stop])

    def test_rows_outside_the_image_are_refused(self, tmp_path: Path) -> None:
        """With `ShapeError`; also a window whose end lies before its start."""
        path, _ = self._file(tmp_path)
        height = self.shapes[0][0]
        with self._open(path) as source:
            for start, stop in ((-1, 1), (0, height + 1), (height, height + 1), (1, 0)):
                with pytest.raises(ShapeError):
                    source.read_rows(start, stop)

    def test_two_readers_of_one_file_do_not_disturb_each_other(self, tmp_path: Path) -> None:
        """The next micrograph is opened while one is read."""
        path, pixels = self._file(tmp_path)
        with self._open(path) as first, self._open(path) as second:
            for row in range(len(pixels)):
                check_rows(first.read_rows(row, row + 1), pixels[row : row + 1])
                check_rows(second.read_rows(0, len(pixels) - row), pixels[: len(pixels) - row])

    def test_it_closes_its_file(self, tmp_path: Path) -> None:
        """After `close`, which may be called twice, after a ``with`` block, and when opening fails."""
        path, _ = self._file(tmp_path)
        source = self._open(path)
        source.read_rows(0, 1)
        source.close()
        source.close()
        assert not holds(path), f"after close, the file is still held: {holds(path)}"
        with contextlib.suppress(ZeroDivisionError), self._open(path):
            raise ZeroDivisionError
        assert not holds(path), f"after an error, the file is still held: {holds(path)}"
        whole = path.read_bytes()
        for length in cuts(len(whole)):
            path.write_bytes(whole[:length])
            with contextlib.suppress(FormatError):
                self._open(path).close()
            assert not holds(path), f"cut to {length} bytes, the file is still held: {holds(path)}"

    # Laws of names and first bytes

    def test_sniff_knows_its_own_files(self, tmp_path: Path) -> None:
        """From the first 2048 bytes, or fewer where the file is shorter."""
        for shape in self.shapes:
            path, _ = self._file(tmp_path, shape)
            assert self.spec.sniff(path.read_bytes()[:HEAD_BYTES]) is True, f"sniff does not know a file of {shape}"

    def test_sniff_leaves_other_files_alone(self, tmp_path: Path) -> None:
        """It returns False for every other kind of file, and never raises, whatever the bytes."""
        write_mrc(tmp_path / "other.mrc", np.ones((4, 5), np.float32))
        heads = {**FOREIGN_HEADS, "mrc": (tmp_path / "other.mrc").read_bytes()}
        for name, head in heads.items():
            if name not in (self.spec.id, *self.shares_first_bytes_with):
                assert self.spec.sniff(head) is False, f"sniff takes a file that is {name}"
        path, _ = self._file(tmp_path)
        own, random = path.read_bytes()[:HEAD_BYTES], np.random.default_rng(0)
        for length in (*range(0, 64, 3), 300, len(own)):
            assert isinstance(self.spec.sniff(own[:length]), bool)
            assert isinstance(self.spec.sniff(random.bytes(length)), bool)

    def test_the_registry_finds_it_by_name_and_by_content(self, tmp_path: Path) -> None:
        """A plugin must be installed for that: ``pip install -e .``."""
        assert self.spec.extensions and all(
            ending.startswith(".") and ending == ending.lower() for ending in self.spec.extensions
        ), f"extensions {self.spec.extensions}; each begins with a dot, in lower case"
        assert self.spec.description and "\n" not in self.spec.description
        for ending in self.spec.extensions:
            path = tmp_path / f"named{ending}"
            self.write(path, self.pixels(self.shapes[0]))
            assert format_of(path) is self.spec, f"{path.name} is taken for {format_of(path).id}"
        if not self.shares_first_bytes_with:
            path.rename(tmp_path / "no_ending")
            assert format_of(tmp_path / "no_ending") is self.spec

    # Laws of damaged files

    def test_a_cut_file_is_refused_or_gives_its_pixels(self, tmp_path: Path) -> None:
        """By a `FormatError` that names the path, in bounded memory; it never gives pixels that were not written."""
        path, pixels = self._file(tmp_path)
        whole = path.read_bytes()
        for length in cuts(len(whole)):
            path.write_bytes(whole[:length])
            with limited_memory(MAX_MEMORY_BYTES, f"a file cut to {length} bytes"):
                rows = self._read_or_refuse(path)
            if rows is not None:
                assert np.array_equal(rows, pixels), f"cut to {length} of {len(whole)} bytes, it gives other pixels"

    def test_a_file_cut_while_it_is_read_is_refused(self, tmp_path: Path) -> None:
        """Its writer may not be done; the result is again a `FormatError`, or the pixels from before."""
        path, pixels = self._file(tmp_path)
        source = self._open(path)
        with path.open("r+b") as stream:
            stream.truncate(path.stat().st_size // 2)
        with source, refusal(path):
            assert np.array_equal(source.read_rows(0, len(pixels)), pixels), "the file was cut, yet it gives pixels"

    def test_garbage_is_refused(self, tmp_path: Path) -> None:
        """Random bytes anywhere, wrong sizes: the file is read or refused, in bounded memory, without any other error."""
        path, _ = self._file(tmp_path)
        for payload in damaged(path.read_bytes()):
            path.write_bytes(payload)
            with limited_memory(MAX_MEMORY_BYTES, f"a damaged file of {len(payload)} bytes"):
                self._read_or_refuse(path)

    # Laws of the validator

    def test_the_validator_finds_nothing_wrong_with_a_sound_file(self, tmp_path: Path) -> None:
        """Notes are allowed."""
        path, _ = self._file(tmp_path)
        wrong = [item for item in self._validate(path) if item.severity != "note"]
        assert not wrong, f"a sound file has findings: {wrong}"

    def test_the_validator_lists_everything(self, tmp_path: Path) -> None:
        """An image without contrast is one error, a NaN in it is a second one."""
        path, pixels = self._file(tmp_path)
        pixels[...] = 0
        self.write(path, pixels)
        errors = [item for item in self._validate(path) if item.severity == "error"]
        assert len(errors) == 1, f"all pixels are equal; found: {errors}"
        if np.dtype(self.dtype).kind == "f":
            pixels[3, 2] = np.nan
            self.write(path, pixels)
            errors = [item for item in self._validate(path) if item.severity == "error"]
            assert len(errors) == 2, f"one pixel is NaN and all others are equal; found: {errors}"

    def test_the_validator_never_raises(self, tmp_path: Path) -> None:
        """If a file cannot be read, its list has an error."""
        path, _ = self._file(tmp_path)
        whole = path.read_bytes()
        for payload in (*(whole[:length] for length in cuts(len(whole))), *damaged(whole)):
            path.write_bytes(payload)
            with limited_memory(MAX_MEMORY_BYTES, f"validating a damaged file of {len(payload)} bytes"):
                findings = self._validate(path)
            if not self._is_readable(path):
                assert any(item.severity == "error" for item in findings), (
                    f"opening or reading is refused, but the validator lists no error: {findings}"
                )

    def test_a_format_with_movies_keeps_the_laws_of_movies(self) -> None:
        """Its tests inherit `MovieFormatContract`."""
        assert self.spec.open_movie is None or self.knows_movies, (
            f"{self.spec.id} opens movies: inherit MovieFormatContract and write them in write_movie"
        )

    def _file(self, folder: Path, shape: tuple[int, int] | None = None) -> tuple[Path, np.ndarray]:
        pixels = self.pixels(shape or self.shapes[0])
        path = folder / f"test{self.spec.extensions[0]}"
        self.write(path, pixels)
        return path, pixels

    def _open(self, path: Path) -> MicrographSource:
        return self.spec.open(path)

    def _validate(self, path: Path) -> list[Finding]:
        findings = self.spec.validate(path)
        assert isinstance(findings, list)
        for item in findings:
            assert isinstance(item, Finding) and item.severity in ("error", "warning", "note"), f"no Finding: {item!r}"
            assert item.field and item.message and "\n" not in item.message, f"a field and one sentence: {item}"
            assert str(path) not in item.message, f"inspect shows the path already: {item.message}"
        return findings

    def _is_readable(self, path: Path) -> bool:
        return self._read_or_refuse(path) is not None

    def _read_or_refuse(self, path: Path) -> ImageF32 | None:
        with refusal(path), self._open(path) as source:
            height, width = source.shape
            assert height >= 1 and width >= 1
            parts = [source.read_rows(start, min(start + 16, height)) for start in range(0, height, 16)]
            whole = np.concatenate(parts)
            assert whole.shape == source.shape and whole.dtype == np.float32
            return whole
        return None


def check_rows(rows: ImageF32, expected: np.ndarray) -> None:
    """Check that rows are an own float32 array with these pixels."""
    assert rows.dtype == np.float32 and rows.dtype.isnative, f"pixels of type {rows.dtype}; they must be float32"
    assert rows.flags.c_contiguous and rows.flags.writeable, "pixels must be a C-contiguous array of their own"
    assert rows.shape == expected.shape, f"shape {rows.shape}; it must be {expected.shape}"
    assert np.array_equal(rows, expected.astype(np.float32), equal_nan=True), "pixels are not those that were written"


@contextlib.contextmanager
def refusal(path: Path) -> Iterator[None]:
    """Allow a block to be refused by `FormatError`, in one sentence that names the file."""
    try:
        yield
    except FormatError as error:
        assert str(path) in str(error), f"the refusal does not name the path: {error}"
        assert len(str(error)) < 2000 and "\n" not in str(error), f"the refusal is not a sentence: {str(error)[:500]!r}"
    # Anything else that is raised goes on and fails the law, with its own traceback.
