"""MRC2014 micrographs: read by bands of rows, written strictly, validated completely.

The header is examined in `cryoplug.formats.mrc_header`, written in `cryoplug.formats.mrc_writer`; import from here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from cryoplug.core.micrograph import ImageF32, MicrographSource
from cryoplug.core.results import Finding
from cryoplug.core.statistics import PixelStatistics, scan_pixels
from cryoplug.errors import CryoplugError, FormatError
from cryoplug.formats.mrc_header import (
    MrcHeader,
    describe_foreign,
    examine,
    open_for_reading,
    parse_header,
    read_head,
    read_header,
    sniff_mrc,
)
from cryoplug.formats.mrc_writer import MrcRowWriter, write_mrc

__all__ = [
    "MrcHeader",
    "MrcMicrograph",
    "MrcRowWriter",
    "describe_foreign",
    "read_header",
    "sniff_mrc",
    "validate_mrc",
    "write_mrc",
]

_STATISTICS_TOLERANCE = 1e-3
"""In standard deviations; float32 sums of other programs agree better than this."""


class MrcMicrograph(MicrographSource):
    """An opened MRC file with one section.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    FormatError
        The header is no MRC header, disagrees with the size of the file, or declares a mode or a number of sections
        that is not read.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = open_for_reading(path)
        try:
            self.header = parse_header(path, self._descriptor)
        except BaseException:
            self.close()
            raise
        self.path = path
        self.shape = (self.header.ny, self.header.nx)
        self.dtype = self.header.dtype
        self.pixel_size_angstrom = self.header.pixel_size_angstrom
        self.warnings = self.header.warnings

    def read_rows(self, start: int, stop: int) -> ImageF32:
        """Read rows with ``pread``: a memory map would end in SIGBUS when the file is cut meanwhile."""
        self.check_rows(start, stop)
        if self._descriptor < 0:
            raise FormatError(f"{self.path}: the micrograph was closed already; open it again")
        header = self.header
        stored = np.empty((stop - start, header.row_size_bytes // header.dtype.itemsize), header.dtype)
        self._fill(stored.reshape(-1).view(np.uint8).data, start)
        if header.mode == 101:
            unpacked = np.empty((stop - start, stored.shape[1] * 2), np.float32)
            unpacked[:, 0::2] = stored & 0x0F
            unpacked[:, 1::2] = stored >> 4
            return np.ascontiguousarray(unpacked[:, : header.nx])
        return stored.astype(np.float32, order="C", copy=False)

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()

    def _fill(self, buffer: memoryview, start: int) -> None:
        offset = self.header.data_offset + start * self.header.row_size_bytes
        done = 0
        while done < len(buffer):
            got = os.preadv(self._descriptor, [buffer[done:]], offset + done)
            if got == 0:
                raise FormatError(
                    f"{self.path}: changed while reading: it ends at byte {offset + done}, "
                    f"{self.header.size_bytes} bytes were there when it was opened; let nothing write it meanwhile"
                )
            done += got


def validate_mrc(path: Path) -> list[Finding]:
    """List everything that is wrong or unusual about an MRC file: header first, then pixels.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    list[Finding]
        Errors are what makes cryoplug refuse the file; with one of them in the header the pixels are not read.
    """
    try:
        descriptor = open_for_reading(path)
    except CryoplugError as error:
        return [Finding("error", "file", str(error).removeprefix(f"{path}: "))]
    try:
        head, size_bytes = read_head(descriptor)
    finally:
        os.close(descriptor)
    findings = list(examine(head, size_bytes).findings)
    if any(finding.severity == "error" for finding in findings):
        return findings
    try:
        with MrcMicrograph(path) as source:
            statistics = scan_pixels(source)
            findings += _pixel_findings(statistics)
            findings += _statistics_findings(source.header.record, statistics)
    except CryoplugError as error:
        findings.append(Finding("error", "pixels", str(error).removeprefix(f"{path}: ")))
    return findings


def _pixel_findings(statistics: PixelStatistics) -> list[Finding]:
    findings = []
    if statistics.nonfinite_count:
        message = (
            f"{statistics.nonfinite_count} of {statistics.count} are NaN or infinite, the first at "
            f"(y, x) = {statistics.first_nonfinite}; repair or re-export the micrograph"
        )
        findings.append(Finding("error", "pixels", message))
    if statistics.is_constant and statistics.nonfinite_count < statistics.count:
        message = f"all finite pixels are {statistics.minimum:g}; a micrograph needs contrast"
        findings.append(Finding("error", "pixels", message))
    elif statistics.maximum - statistics.mean > 50 * statistics.std:
        sigmas = (statistics.maximum - statistics.mean) / statistics.std
        message = f"maximum {statistics.maximum:g} lies {sigmas:.0f} standard deviations above the mean (hot pixels?)"
        findings.append(Finding("note", "pixels", message))
    return findings


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
