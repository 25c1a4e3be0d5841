"""Inspect one micrograph or one STAR file."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from cryoplug.core.micrograph import MicrographSource
from cryoplug.core.results import Finding
from cryoplug.core.statistics import scan_pixels
from cryoplug.errors import FormatError, InputError
from cryoplug.formats.mrc_header import examine, open_for_reading, read_head
from cryoplug.formats.registry import format_of
from cryoplug.formats.star import StarFile, micrograph_table, pixel_sizes, read_star
from cryoplug.workflows.discovery import discover
from cryoplug.workflows.inspection import Inspection

_SHOWN_MISSING = 5


def inspect_micrograph(path: Path) -> Inspection:
    """Inspect an image file: its header, its size, its statistics, and all that its format's validator finds."""
    summary: dict[str, Any] = {"size_bytes": path.stat().st_size}
    try:
        spec = format_of(path)
    except InputError as error:
        finding = Finding("error", "format", str(error).removeprefix(f"{path}: "))
        return Inspection(path, "unusable", summary, (finding,))
    summary["format"] = spec.id
    findings = list(spec.validate(path))
    if spec.id == "mrc":
        summary |= _mrc_header(path)
    try:
        with spec.open(path) as source:
            summary |= {
                "shape": list(source.shape),
                "dtype": source.dtype.name,
                "pixel_size_angstrom": source.pixel_size_angstrom,
            }
            summary |= _statistics(source, findings)
    except InputError as error:
        if not any(item.severity == "error" for item in findings):
            findings.append(Finding("error", "file", str(error).removeprefix(f"{path}: ")))
    return Inspection(path, "micrograph", summary, tuple(findings))


def _statistics(source: MicrographSource, findings: list[Finding]) -> dict[str, Any]:
    stats = scan_pixels(source)
    known = any(item.severity == "error" and item.field == "pixels" for item in findings)
    if stats.nonfinite_count and not known:
        message = f"{stats.nonfinite_count} NaN or infinite, first at (y, x) = {stats.first_nonfinite}; repair it"
        findings.append(Finding("error", "pixels", message))
    if stats.is_constant and not known:
        findings.append(Finding("error", "pixels", f"all are {stats.minimum:g}; there is no image in it"))
    return {
        "minimum": stats.minimum,
        "maximum": stats.maximum,
        "mean": stats.mean,
        "std": stats.std,
        "positive_pixels": stats.positive_count,
        "nonfinite_pixels": stats.nonfinite_count,
    }


def _mrc_header(path: Path) -> dict[str, Any]:
    # Examined, not opened: the numbers of a header that cannot be used are what shows why.
    descriptor = open_for_reading(path)
    try:
        seen = examine(*read_head(descriptor))
    finally:
        os.close(descriptor)
    record = seen.record
    if record is None:
        return {}
    used = record["label"][: max(0, int(record["nlabl"]))]
    labels = [" ".join(bytes(label).decode("ascii", "replace").strip("\0 ").split()) for label in used]
    return {
        "header_size": {name: int(record[name]) for name in ("nx", "ny", "nz")},
        "mode": int(record["mode"]),
        "byte_order": {"<": "little-endian", ">": "big-endian"}[seen.byte_order],
        "extended_header_bytes": int(record["nsymbt"]),
        "header_statistics": {name: float(record[name]) for name in ("dmin", "dmax", "dmean", "rms")},
        "labels": [label for label in labels if label],
    }


def inspect_star(path: Path) -> Inspection:
    """Inspect a STAR file: its tables, the micrographs that it names, their pixel sizes and optics groups."""
    summary: dict[str, Any] = {"size_bytes": path.stat().st_size}
    try:
        star = read_star(path)
    except FormatError as error:
        finding = Finding("error", "text", str(error).removeprefix(f"{path}: ").removeprefix(f"{path}:"))
        return Inspection(path, "star", summary, (finding,))
    summary["tables"] = {
        block.name or "(no name)": {
            "rows": len(block.rows),
            "columns": len(block.columns),
            "names": list(block.columns),
        }
        for block in star.blocks
    }
    findings: list[Finding] = []
    if not star.blocks:
        findings.append(Finding("error", "text", "no data_ block in it; it is empty or no STAR file"))
    elif _has_micrographs(star):
        summary["optics_groups"] = _optics_groups(star)
        summary |= _pixel_sizes(star, findings)
        summary |= _micrographs(path, findings)
    else:
        message = "no table names micrographs (rlnMicrographName), so convert and denoise cannot take it as input"
        findings.append(Finding("note", "tables", message))
    return Inspection(path, "star", summary, tuple(findings))


def _has_micrographs(star: StarFile) -> bool:
    try:
        table = micrograph_table(star)
    except InputError:
        return False
    return "rlnMicrographName" in table.columns


def _optics_groups(star: StarFile) -> list[str]:
    block = next((block for block in star.blocks if block.name == "optics"), None)
    if block is None:
        return []
    name = next((item for item in ("rlnOpticsGroupName", "rlnOpticsGroup") if item in block.columns), None)
    return block.column(name) if name else []


def _pixel_sizes(star: StarFile, findings: list[Finding]) -> dict[str, Any]:
    try:
        counted = Counter(pixel_sizes(star))
    except InputError as error:
        findings.append(Finding("error", "pixel size", str(error)))
        return {}
    known = [size for size in counted if size is not None]
    if known and (None in counted or max(known) > 1.01 * min(known)):
        shown = ", ".join(
            f"{size:.4g} ({count} rows)" if size else f"unknown ({count} rows)"
            for size, count in sorted(counted.items(), key=str)
        )
        message = f"{len(counted)} different ones, in angstrom: {shown}; train and denoise them apart"
        findings.append(Finding("warning", "pixel size", message))
    elif not known:
        findings.append(Finding("note", "pixel size", "not given for any micrograph"))
    return {"pixel_size_angstrom": sorted(counted, key=str)}


def _micrographs(path: Path, findings: list[Finding]) -> dict[str, Any]:
    try:
        named = discover([str(path)])
    except InputError as error:
        findings.append(Finding("error", "micrographs", str(error).removeprefix(f"{path}: ")))
        return {}
    files = list(dict.fromkeys(item.path for item in named))
    missing = [item for item in files if not item.exists()]
    if missing:
        shown = ", ".join(str(item) for item in missing[:_SHOWN_MISSING])
        more = f" and {len(missing) - _SHOWN_MISSING} more" if len(missing) > _SHOWN_MISSING else ""
        message = f"{len(missing)} of {len(files)} files are missing: {shown}{more}"
        advice = "restore them, or run from the project folder"
        findings.append(Finding("warning", "micrographs", f"{message}; {advice}"))
    return {"micrographs": len(files), "micrographs_missing": len(missing)}
