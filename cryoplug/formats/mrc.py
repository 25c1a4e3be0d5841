"""MRC2014 micrographs: read in bands of rows, write by the standard, and validate completely.

`cryoplug.formats.mrc_header` examines headers, `cryoplug.formats.mrc_writer` writes files; import from this module.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cryoplug.core.micrograph import ImageF32, MicrographSource, MovieSource, check_single
from cryoplug.core.results import Finding
from cryoplug.core.statistics import PixelStatistics, scan_pixels
from cryoplug.disk.file_state import file_state
from cryoplug.disk.opening import open_for_reading, read_errors
from cryoplug.disk.retry import retried
from cryoplug.errors import CryoplugError, FormatError, PixelError, SeveralImagesError, ShapeError
from cryoplug.formats.mrc_claims import remark_on_origin
from cryoplug.formats.mrc_extended import pixel_size_of_file
from cryoplug.formats.mrc_header import (
    MrcHeader,
    describe_foreign,
    examine,
    parse_header,
    read_head,
    read_header,
    sniff_mrc,
)
from cryoplug.formats.mrc_writer import MrcRowWriter, StoredStatistics, check_float16_range, mrc_head, write_mrc
from cryoplug.formats.validation import Measure, image_findings, pixel_findings

__all__ = [
    "MrcHeader",
    "MrcMicrograph",
    "MrcMovie",
    "MrcRowWriter",
    "StoredStatistics",
    "check_float16_range",
    "describe_foreign",
    "examine_mrc",
    "mrc_head",
    "read_header",
    "sniff_mrc",
    "validate_mrc",
    "write_mrc",
]

_STATISTICS_TOLERANCE = 1e-3
"""Largest difference of header statistics, in standard deviations; float32 sums of other programs agree better than this."""


class MrcMicrograph(MicrographSource):
    """An opened section of an MRC file.

    Parameters
    ----------
    path
        The file.
    section
        Number of the section, from 1; None: the file must have a single section.

    Raises
    ------
    FormatError
        The header is not an MRC header, does not fit the file size, or has an unsupported mode; or the file has several
        sections and `section` is None.
    ShapeError
        There is no such section.
    """

    def __init__(self, path: Path, section: int | None = None) -> None:
        self._pixels = _PixelBytes(path)
        self.header = header = self._pixels.header
        try:
            if section is None:
                check_single(path, header.nz)
            elif not 1 <= section <= header.nz:
                raise ShapeError(f"{path}: section {section} was asked for; allowed: 1 to {header.nz} (counted from 1)")
        except BaseException:
            self.close()
            raise
        self._first_byte = ((section or 1) - 1) * header.section_size_bytes
        self.path = path
        self.shape = (header.ny, header.nx)
        self.dtype = header.dtype
        self.pixel_size_angstrom, remark = pixel_size_of_file(header)
        self.warnings = (*header.warnings, *filter(None, (remark, remark_on_origin(header.record))))

    def read_rows(self, start: int, stop: int) -> ImageF32:
        """Read rows with ``pread``, because a memory map ends in SIGBUS when the file is cut meanwhile."""
        self.check_rows(start, stop)
        size = self.header.row_size_bytes
        return self.header.unpack(
            self._pixels.read(self._first_byte + start * size, (stop - start) * size), stop - start
        )

    @property
    def stored_dtype(self) -> np.dtype | None:
        """Type of the stored pixels, with byte order; None for two pixels in a byte (mode 101)."""
        return None if self.header.mode == 101 else self.header.dtype

    def read_stored(self, start: int, stop: int, into: memoryview) -> None:
        """Read the stored bytes of rows."""
        self.check_rows(start, stop)
        size = self.header.row_size_bytes
        self._pixels.read_into(into[: (stop - start) * size], self._first_byte + start * size)

    def close(self) -> None:
        """Close the file."""
        self._pixels.close()


class MrcMovie(MovieSource):
    """An opened MRC file as a movie or stack of its sections.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    FormatError
        As for `MrcMicrograph`, except that any number of sections is read.
    """

    def __init__(self, path: Path) -> None:
        self._pixels = _PixelBytes(path)
        self.header = header = self._pixels.header
        self.path = path
        self.frame_shape = (header.ny, header.nx)
        self.frame_count = header.nz
        self.dtype = header.dtype
        self.pixel_size_angstrom, remark = pixel_size_of_file(header)
        self.warnings = (*header.warnings, *filter(None, (remark, remark_on_origin(header.record))))

    def read_frame(self, index: int) -> ImageF32:
        """Read one section."""
        self.check_frame(index)
        header = self._pixels.header
        return header.unpack(self._pixels.read(index * header.section_size_bytes, header.section_size_bytes), header.ny)

    def read_frames(self, start: int, stop: int) -> ImageF32:
        """Read several sections at once: a thousand particles of 64 x 64 take 2 ms, and 20 ms one by one."""
        self.check_frames(start, stop)
        size = self.header.section_size_bytes
        raw = self._pixels.read(start * size, (stop - start) * size)
        rows = self.header.unpack(raw, (stop - start) * self.header.ny)
        return rows.reshape(stop - start, self.header.ny, self.header.nx)

    def frame(self, index: int) -> MicrographSource:
        """Give one section as a micrograph, with the header that outputs carry over."""
        self.check_frame(index)
        self.close()
        return MrcMicrograph(self.path, index + 1)

    def close(self) -> None:
        """Close the file."""
        self._pixels.close()


class _PixelBytes:
    """The header of a file, and its pixels as bytes."""

    def __init__(self, path: Path) -> None:
        self._descriptor = open_for_reading(path)
        try:
            self._identity = self._current_identity()
            self.header = parse_header(path, self._descriptor)
            self._check_written()
        except BaseException:
            self.close()
            raise

    def _check_written(self) -> None:
        """Refuse a sparse file without pixels: it holds only zeros, which may take hours to read."""
        header, descriptor = self.header, self._descriptor
        try:
            hole = os.lseek(descriptor, header.data_offset, os.SEEK_HOLE)
            # The header's own disk block is there; the end of a file counts as a hole.
            if hole < header.size_bytes and hole - header.data_offset <= os.fstat(descriptor).st_blksize:
                os.lseek(descriptor, hole, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                found = f"nothing was ever written after byte {hole} of {header.size_bytes} (a sparse file)"
                raise PixelError(f"{header.path}: {found}; copy it again") from error

    def read(self, offset: int, size: int) -> npt.NDArray[np.uint8]:
        found = np.empty(size, np.uint8)
        self.read_into(found.data, offset)
        return found

    def read_into(self, buffer: memoryview, offset: int) -> None:
        header = self.header
        if self._descriptor < 0:
            raise FormatError(f"{header.path}: the micrograph was closed already; open it again")
        done, size = 0, buffer.nbytes
        offset += header.data_offset
        while done < size:
            got = self._read_some(buffer[done:], offset + done)
            if got == 0:
                raise FormatError(
                    f"{header.path}: changed while reading: it ends at byte {offset + done}, "
                    f"{header.size_bytes} bytes were there when it was opened; let nothing write it meanwhile"
                )
            done += got

    def _read_some(self, place: memoryview, offset: int) -> int:
        with read_errors(self.header.path):
            return retried(lambda: os.preadv(self._descriptor, [place], offset), again=self._open_again)

    def _open_again(self) -> None:
        """Get a new handle on the file; the old one may be stale."""
        path = self.header.path
        self.close()
        self._descriptor = open_for_reading(path)
        if self._current_identity() != self._identity:
            raise FormatError(
                f"{path}: changed while reading: another file has its name now; let nothing write it meanwhile"
            )

    def _current_identity(self) -> tuple[int, int, int] | None:
        state = file_state(self._descriptor)
        return None if state is None else state.same_file

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()


def validate_mrc(path: Path, measure: Measure = scan_pixels) -> list[Finding]:
    """List everything that is wrong or unusual about an MRC file: header first, then pixels.

    Parameters
    ----------
    path
        The file.
    measure
        Called with the image, if the file holds a single one.

    Returns
    -------
    list[Finding]
        Findings; with any error, cryoplug refuses the file. With an error in the header, pixels are not read.
    """
    findings = examine_mrc(path)
    if any(finding.severity == "error" for finding in findings):
        return findings
    try:
        return findings + _pixel_findings(path, measure)
    except CryoplugError as error:
        return [*findings, Finding("error", "pixels", str(error).removeprefix(f"{path}: "))]


def examine_mrc(path: Path) -> list[Finding]:
    """List everything that is wrong or unusual about the header of an MRC file."""
    try:
        descriptor = open_for_reading(path)
    except CryoplugError as error:
        return [Finding("error", "file", str(error).removeprefix(f"{path}: "))]
    try:
        return list(examine(*read_head(descriptor)).findings)
    finally:
        os.close(descriptor)


def _pixel_findings(path: Path, measure: Measure) -> list[Finding]:
    try:
        with MrcMicrograph(path) as source:
            statistics = measure(source)
            return pixel_findings(statistics) + _statistics_findings(source.header.record, statistics)
    except SeveralImagesError:
        with MrcMovie(path) as movie:
            return image_findings(movie)


def _statistics_findings(record: Any, statistics: PixelStatistics) -> list[Finding]:
    low, high, mean, rms = (float(record[name]) for name in ("dmin", "dmax", "dmean", "rms"))
    if low == high == mean == 0 and rms <= 0 and not (statistics.minimum == statistics.maximum == 0):
        return [Finding("note", "dmin, dmax, dmean, rms", "all zero: the statistics were never filled in")]
    if statistics.nonfinite_count:
        return []
    tolerance = _STATISTICS_TOLERANCE * statistics.std + 1e-5 * max(abs(statistics.minimum), abs(statistics.maximum))
    # MRC2014 marks a statistic as undetermined by dmax < dmin, dmean below both, rms < 0.
    checks = []
    if not high < low:
        checks += [("dmin", low, statistics.minimum), ("dmax", high, statistics.maximum)]
    if not mean < min(low, high):
        checks.append(("dmean", mean, statistics.mean))
    if rms > 0:  # programs before MRC2014 left it 0
        checks.append(("rms", rms, statistics.std))
    return [
        Finding("warning", name, f"header says {said:g}, the pixels say {found:g}; re-export it or ignore the header")
        for name, said, found in checks
        if not abs(said - found) <= tolerance
    ]
