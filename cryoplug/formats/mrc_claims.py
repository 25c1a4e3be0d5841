"""What an MRC header claims beside the sizes of its images: pixel size, axes, version, labels, and what is odd about them.

No claim here makes a file unusable; `cryoplug.formats.mrc_header` examines those that can.
"""

from __future__ import annotations

import math
import re
from typing import Literal

import numpy as np

from cryoplug.core.results import Finding

DENOISED_ALREADY = "it is a denoised micrograph already, by its label; take the raw one"
"""Remark on a file that `denoise` has written."""
_LABEL_OF_DENOISE = re.compile(rb"cryoplug \S+ \S+ sha256:")
_KNOWN_TYPES = {b"CCP4", b"MRCO", b"SERI", b"AGAR", b"FEI1", b"FEI2", b"HDF5"}


def pixel_size(record: np.void, axis: str = "x") -> float | None:
    """Give ``cella / m`` of an axis in angstrom, or None if that cannot be the size of a pixel."""
    samples, length = int(record[f"m{axis}"]), float(record["cella"][axis])
    if samples < 1 or not (math.isfinite(length) and length > 0):
        return None
    # A denormal cell (3.6e-43 was seen) is garbage, and so is a pixel of a millimetre.
    spacing = length / samples
    return spacing if 1e-4 < spacing < 1e7 else None


def geometry_findings(record: np.void) -> list[Finding]:
    """Look at the pixel size, the number of samples in the cell, and the order of the axes."""
    findings = []
    spacing_x, spacing_y = pixel_size(record, "x"), pixel_size(record, "y")
    cell = tuple(float(record["cella"][axis]) for axis in "xyz")
    grid = tuple(int(record[name]) for name in ("mx", "my", "mz"))
    if spacing_x is None:
        severity: Literal["note", "warning"] = "note" if cell[0] == 0 else "warning"
        message = f"pixel size is unset (cell {cell[0]:g} A over {grid[0]} samples)"
        findings.append(Finding(severity, "cella, mx", message))
    elif spacing_y is None or abs(spacing_x - spacing_y) > 1e-3 * spacing_x:
        shown = "unset" if spacing_y is None else f"{spacing_y:g}"
        message = f"pixel size differs by axis: x {spacing_x:g}, y {shown} A; x is used"
        findings.append(Finding("warning", "cella", message))
    elif spacing_x == 1.0:
        message = (
            "pixel size is exactly 1 A, which programs also write when they do not know it: it counts as unknown; "
            "give --pixel-size where one is needed"
        )
        findings.append(Finding("note", "cella, mx", message))
    nx, ny = int(record["nx"]), int(record["ny"])
    if spacing_x is not None and nx > 0 and ny > 0 and (grid[0], grid[1]) != (nx, ny):
        message = (
            f"the cell has {grid[0]} x {grid[1]} samples but the image {nx} x {ny} pixels: pixel size {spacing_x:g} A "
            f"is right for a cut-out, {spacing_x * grid[0] / nx:g} A for a binned image; --pixel-size decides"
        )
        findings.append(Finding("warning", "mx, my", message))
    axes = tuple(int(record[name]) for name in ("mapc", "mapr", "maps"))
    if sorted(axes) != [1, 2, 3]:
        message = f"axis order {axes}; allowed: a permutation of 1, 2, 3; 1, 2, 3 is assumed"
        findings.append(Finding("warning", "mapc, mapr, maps", message))
    elif axes != (1, 2, 3):
        message = f"axis order {axes}; rows are taken as they are stored"
        findings.append(Finding("warning", "mapc, mapr, maps", message))
    return findings


def label_findings(record: np.void) -> list[Finding]:
    """Look at the version, the type of the extended header, and the number of labels."""
    findings = []
    if int(record["nversion"]) not in (20140, 20141):
        message = f"{int(record['nversion'])}; MRC2014 says 20140 or 20141 (many programs leave it 0)"
        findings.append(Finding("note", "nversion", message))
    if int(record["nsymbt"]) > 0 and bytes(record["exttyp"]) not in _KNOWN_TYPES:
        message = f"type {bytes(record['exttyp'])!r} of the extended header is unknown; it is carried over untouched"
        findings.append(Finding("note", "exttyp", message))
    filled = [bool(bytes(label).strip(b" \0")) for label in record["label"]]
    said = int(record["nlabl"])
    if said != sum(filled):
        findings.append(Finding("note", "nlabl", f"says {said} labels, {sum(filled)} hold text"))
    return findings


def remark_on_origin(record: np.void) -> str:
    """Say that a label of `denoise` is in the header; empty without one."""
    return DENOISED_ALREADY if any(map(_LABEL_OF_DENOISE.match, record["label"])) else ""
