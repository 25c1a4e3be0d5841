"""MRC files inside gzip, bzip2, xz or zstd, read directly, without an unpacked copy on disk.

The size of the contents is known only at the end of unpacking. So the header inside is believed only if the size of the
compressed file makes it possible: noise does not shrink to a hundredth, so a file that claims this is not a micrograph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cryoplug.core.micrograph import ImageF32, MicrographSource, MovieFrame, MovieSource, only_frame
from cryoplug.core.results import Finding
from cryoplug.core.statistics import scan_pixels
from cryoplug.disk.opening import read_errors
from cryoplug.errors import FormatError
from cryoplug.formats import unpacking
from cryoplug.formats.mrc_claims import remark_on_origin
from cryoplug.formats.mrc_extended import pixel_size_of_file
from cryoplug.formats.mrc_header import HEADER_BYTES, MrcHeader, examine, expected_bytes, parse_head
from cryoplug.formats.validation import Measure, validate_by_reading

MAX_GROWTH = 100
"""Largest ratio of the size inside to the size of the file; float32 images of counts shrink to a tenth, masks more."""
SMALL_BYTES = 16 << 20
"""Contents up to this size may grow by any factor."""
IDLE_BYTES = 1 << 18
"""Packed bytes that may yield nothing before cryoplug gives up; a file of a million empty streams took half a minute."""

ENDINGS = tuple(f"{inner}{outer}" for inner in (".mrc", ".mrcs", ".map") for outer in unpacking.ENDINGS.values())
"""Endings of the names of such files."""


def sniff_compressed(head: bytes) -> bool:
    """Say whether bytes are the start of a packed file."""
    return unpacking.kind_of(head) is not None


def open_compressed(path: Path) -> MicrographSource:
    """Open a compressed MRC file with one section; errors are those of `CompressedMrcMovie`."""
    return only_frame(CompressedMrcMovie(path))


def validate_compressed(path: Path, measure: Measure = scan_pixels) -> list[Finding]:
    """List everything that is wrong or unusual about a compressed MRC file."""
    return validate_by_reading(path, CompressedMrcMovie, measure)


class CompressedMrcMovie(MovieSource):
    """An opened compressed MRC file. Read frames in their order, because going back unpacks from the start again.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    FormatError
        It is damaged, it holds no MRC file, or it claims to grow more than any micrograph does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_stream = True
        raw = path.open("rb")
        try:
            kind, size = unpacking.kind_of(raw.read(8)), raw.seek(0, 2)
            raw.seek(0)
            self._raw, self._packed = raw, _Packed(raw)
            self._stream = self._opened(kind or "gzip")
            self.header = self._parse(size)
        except BaseException:
            raw.close()
            raise
        self.frame_shape = (self.header.ny, self.header.nx)
        self.frame_count = self.header.nz
        self.dtype = self.header.dtype
        self.pixel_size_angstrom, remark = pixel_size_of_file(self.header)
        self.warnings = (*self.header.warnings, *filter(None, (remark, remark_on_origin(self.header.record))))

    def read_frame(self, index: int) -> ImageF32:
        """Decompress one section."""
        self.check_frame(index)
        size = self.header.section_size_bytes
        with self._damage():
            start = self.header.data_offset + index * size
            self._packed.expect(start + size)
            self._stream.seek(start)
            raw = np.empty(size, np.uint8)
            buffer, done = raw.data, 0
            while done < size:
                chunk = self._stream.read(min(size - done, 1 << 20))
                if not chunk:
                    self._refuse_short(start + done, index)
                buffer[done : done + len(chunk)] = chunk
                done += len(chunk)
        if index + 1 == self.header.nz:
            self.check_end()  # damage may have made the contents longer: the checksum comes after all of them
        return self.header.unpack(raw, self.header.ny)

    def _refuse_short(self, end: int, index: int) -> None:
        header = self.header
        if end == HEADER_BYTES + header.nz * header.section_size_bytes:
            raise FormatError(
                f"{self.path}: the header claims {len(header.extended_header)} bytes of extended header (nsymbt), which are not "
                "there; it was copied from another file. Unpack the file: then cryoplug finds the pixels by its size"
            )
        raise FormatError(
            f"{self.path}: the contents end at byte {end}, before section {index + 1} of {header.nz} is complete; copy or "
            "export it again"
        )

    def check_end(self) -> list[str]:
        """Unpack the bytes after the last section, up to 16 MiB, so that the checksum at the end is checked."""
        with self._damage():
            place = self.header.data_offset + self.header.nz * self.header.section_size_bytes
            self._packed.expect(place + SMALL_BYTES)
            self._stream.seek(place)
            more = 0
            while more <= SMALL_BYTES and (chunk := self._stream.read(1 << 20)):
                more += len(chunk)
        if not more:
            return []
        counted = f"{more} bytes follow" if more <= SMALL_BYTES else f"more than {SMALL_BYTES} bytes follow"
        return [f"{counted} the last pixel inside; they are ignored"]

    def frame(self, index: int) -> MicrographSource:
        """Give one section as a micrograph, with the header that outputs carry over."""
        return _Section(self, index)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        self._raw.close()

    def _opened(self, kind: str) -> BinaryIO:
        try:
            return unpacking.open_packed(self._packed, kind)
        except unpacking.MissingLibraryError as error:
            raise FormatError(
                f"{self.path}: packed by {kind}; to read it: pip install 'cryoplug[movies]', or unpack it first"
            ) from error

    def _parse(self, compressed_bytes: int) -> MrcHeader:
        limit = max(SMALL_BYTES, MAX_GROWTH * compressed_bytes)
        with self._damage():
            self._packed.expect(HEADER_BYTES)
            head = self._stream.read(HEADER_BYTES)
        seen = examine(head, limit)
        if seen.record is None:
            found = "; ".join(item.message for item in seen.findings)
            raise FormatError(f"{self.path}: a compressed file that holds no MRC image ({found}); leave it out")
        if not any(item.severity == "error" for item in examine(head, 1 << 62).findings):
            size = expected_bytes(seen.record)
            if size > limit:
                raise FormatError(
                    f"{self.path}: {compressed_bytes} bytes that claim to hold {size}; allowed: up to {MAX_GROWTH} times "
                    "as many; no micrograph compresses so well: check where it comes from, or decompress it first"
                )
        else:
            size = limit
        return parse_head(self.path, head, size, self._read_extended)

    def _read_extended(self, count: int) -> bytes:
        with self._damage():
            self._packed.expect(HEADER_BYTES + count)
            return self._stream.read(count)

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        if self._raw.closed:
            raise FormatError(f"{self.path}: the micrograph was closed already; open it again")
        with read_errors(self.path):
            try:
                yield
            except unpacking.DAMAGE as error:
                # A disk that fails has an error number, a damaged stream has none.
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                raise FormatError(f"{self.path}: damaged or incomplete ({error}); copy or export it again") from error


class _Packed:
    """The packed bytes of the file; they are given out only while they yield something."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._taken = self._allowed = 0

    def expect(self, size: int) -> None:
        """Allow the packed bytes that `size` bytes of the image can need; compression never makes data larger."""
        self._allowed = IDLE_BYTES + 2 * size

    def read(self, size: int = -1) -> bytes:
        got = self._raw.read(size)
        self._taken += len(got)
        if self._taken > self._allowed:
            raise EOFError(f"{self._taken} bytes hold less than {self._allowed} inside")
        return got

    def seek(self, offset: int, whence: int = 0) -> int:
        self._taken = self._raw.seek(offset, whence)
        return self._taken

    def seekable(self) -> bool:
        return True


class _Section(MovieFrame):
    def __init__(self, movie: CompressedMrcMovie, index: int) -> None:
        super().__init__(movie, index)
        self.header = movie.header
