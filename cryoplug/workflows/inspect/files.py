"""Inspect one micrograph, stack or movie, or one STAR file or cryoSPARC dataset."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryoplug.core.micrograph import MovieSource
from cryoplug.core.pixel_size import UNKNOWN_ADVICE
from cryoplug.core.results import Finding
from cryoplug.disk.opening import open_for_reading
from cryoplug.errors import FormatError, InputError
from cryoplug.formats.cs import cs_images
from cryoplug.formats.mrc_claims import pixel_size
from cryoplug.formats.mrc_extended import read_acquisition
from cryoplug.formats.mrc_header import SUPPORTED_MODES, Examination, examine, read_head, read_header
from cryoplug.formats.mrc_second_opinion import second_opinion as mrcfiles_opinion
from cryoplug.formats.registry import format_of, open_movie
from cryoplug.formats.star import IMAGE_COLUMNS, ImageTable, StarFile, image_table, read_star
from cryoplug.formats.star_frames import second_opinion as starfiles_opinion
from cryoplug.formats.validation import header_findings
from cryoplug.inputs.discovery import discover
from cryoplug.workflows.inspect.inspection import Inspection, lacks_pixel_size
from cryoplug.workflows.inspect.one_reading import OneReading
from cryoplug.workflows.inspect.pixel_sizes import pixel_size_findings

_SHOWN_MISSING = 5
_SECOND_OPINION_BYTES = 32 << 20
"""Largest STAR file in bytes that starfile also reads; starfile takes seconds for a larger one."""


def inspect_micrograph(path: Path, *, quick: bool = False) -> Inspection:
    """Inspect an image file: its header, size, statistics, and everything that the validator of its format finds.

    Every image of a stack or movie is read; the statistics shown are those of the first.

    Parameters
    ----------
    path
        The file.
    quick
        Read only the header.
    """
    summary: dict[str, Any] = {"size_bytes": path.stat().st_size}
    try:
        spec = format_of(path)
    except InputError as error:
        finding = Finding("error", "format", str(error).removeprefix(f"{path}: "))
        return Inspection(path, "unusable", summary, (finding,))
    summary["format"] = spec.id
    if quick and spec.id == "mrc":
        return _mrc_quick(path, summary)
    read = OneReading()
    if quick:
        findings = [] if spec.examine is None else list(spec.examine(path))
    elif spec.validate_with is None:
        findings = list(spec.validate(path))
    else:
        findings = list(spec.validate_with(path, read))
    kind = "micrograph"
    if spec.id == "mrc":
        seen, opinion = _examined(path)
        findings += opinion
        summary |= _mrc_header(seen)
        if seen.record is not None and int(seen.record["nsymbt"]) > 0:
            summary |= _acquisition(path)
    if read.summary:
        summary |= read.summary
        return Inspection(path, kind, summary, (*findings, *_without_pixel_size(summary)))
    wrong = any(item.severity == "error" for item in findings)
    try:
        with open_movie(path) as movie:
            if movie.frame_count > 1:
                kind, summary["images"] = "stack or movie", movie.frame_count
            summary |= {
                "shape": list(movie.frame_shape),
                "dtype": movie.dtype.name,
                "pixel_size_angstrom": movie.pixel_size_angstrom,
            }
            if quick:
                findings += [] if spec.examine is not None else header_findings(movie)
                summary["pixels"] = "not read"
            else:
                summary |= _read_first(movie, findings)
    except InputError as error:
        if not wrong:
            findings.append(Finding("error", "file", str(error).removeprefix(f"{path}: ")))
    return Inspection(path, kind, summary, (*findings, *_without_pixel_size(summary)))


def _without_pixel_size(summary: dict[str, Any]) -> list[Finding]:
    """Report that the file does not state its pixel size, before `denoise` asks for it."""
    if not lacks_pixel_size(summary):
        return []
    return [Finding("note", "pixel size", f"not known: {UNKNOWN_ADVICE}")]


def _read_first(movie: MovieSource, findings: list[Finding]) -> dict[str, Any]:
    """Read the first image of a file if its validator did not share its reading, and check the pixels."""
    read = OneReading()
    with movie.frame(0) as source:
        stats = read(source)
    known = any(item.severity == "error" and item.field == "pixels" for item in findings)
    if stats.nonfinite_count and not known:
        message = f"{stats.nonfinite_count} NaN or infinite, first at (y, x) = {stats.first_nonfinite}; repair it"
        findings.append(Finding("error", "pixels", message))
    if stats.is_constant and not known:
        findings.append(Finding("error", "pixels", f"all are {stats.minimum:g}; there is no image in it"))
    return read.summary


def _examined(path: Path) -> tuple[Examination, list[Finding]]:
    """Read a header, and compare it with the reading of mrcfile."""
    # Examined, not opened: the numbers of a header that cannot be used are what shows why.
    descriptor = open_for_reading(path)
    try:
        head, size_bytes = read_head(descriptor)
    finally:
        os.close(descriptor)
    seen = examine(head, size_bytes)
    return seen, [Finding("note", "mrcfile", text) for text in mrcfiles_opinion(head, size_bytes, seen)]


def _mrc_quick(path: Path, summary: dict[str, Any]) -> Inspection:
    """Describe an MRC file from its header alone; there may be thousands of files."""
    seen, opinion = _examined(path)
    summary |= _mrc_header(seen)
    kind = "micrograph"
    if seen.record is not None and not any(item.severity == "error" for item in seen.findings):
        nx, ny, nz = (int(seen.record[name]) for name in ("nx", "ny", "nz"))
        if nz > 1:
            kind, summary["images"] = "stack or movie", nz
        summary |= {
            "shape": [ny, nx],
            "dtype": "uint8" if seen.unsigned_bytes else SUPPORTED_MODES[int(seen.record["mode"])],
            "pixel_size_angstrom": pixel_size(seen.record),
        }
        if int(seen.record["nsymbt"]) > 0:
            # The microscope may have written more there, the pixel size as well.
            summary |= _acquisition(path)
            with open_movie(path) as movie:
                summary["pixel_size_angstrom"] = movie.pixel_size_angstrom
    findings = (*seen.findings, *opinion, *_without_pixel_size(summary))
    return Inspection(path, kind, {**summary, "pixels": "not read"}, findings)


def _mrc_header(seen: Examination) -> dict[str, Any]:
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


def _acquisition(path: Path) -> dict[str, Any]:
    """Give the values that the microscope wrote into the extended header."""
    try:
        found = read_acquisition(read_header(path))
    except InputError:
        return {}
    if found is None:
        return {}
    return {"acquisition": {name: value for name, value in vars(found).items() if value not in (None, "")}}


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
        findings.append(Finding("error", "text", "has no data_ block; it is empty or not a STAR file"))
    else:
        table = _images(star, findings)
        if table is not None:
            summary["optics_groups"] = _optics_groups(star)
            summary["images_in"] = table.column
            summary |= _pixel_sizes(table.pixel_sizes, findings)
            summary |= _files(path, findings)
        if summary["size_bytes"] <= _SECOND_OPINION_BYTES:
            findings += [Finding("warning", "starfile", text) for text in starfiles_opinion(star)]
    return Inspection(path, "star", summary, tuple(findings))


def inspect_cs(path: Path) -> Inspection:
    """Inspect a cryoSPARC dataset: the images that it names, and their pixel sizes."""
    summary: dict[str, Any] = {"size_bytes": path.stat().st_size}
    findings: list[Finding] = []
    try:
        images = cs_images(path, "either")
    except InputError as error:
        findings.append(Finding("error", "dataset", str(error).removeprefix(f"{path}: ")))
    else:
        summary["rows"] = len(images)
        summary |= _pixel_sizes([image.pixel_size_angstrom for image in images], findings)
        summary |= _files(path, findings)
    return Inspection(path, "cs", summary, tuple(findings))


def _images(star: StarFile, findings: list[Finding]) -> ImageTable | None:
    listed = any(column in block.columns for block in star.blocks for column in IMAGE_COLUMNS)
    if not listed:
        message = f"no table names micrographs, movies or images ({', '.join(IMAGE_COLUMNS)}), "
        findings.append(Finding("note", "tables", f"{message}so convert and denoise cannot take it as input"))
        return None
    try:
        return image_table(star, "either")
    except FormatError as error:
        findings.append(Finding("error", "tables", str(error).removeprefix(f"{star.path}: ")))
    except InputError as error:
        findings.append(Finding("error", "pixel size", str(error).removeprefix(f"{star.path}: ")))
    return None


def _optics_groups(star: StarFile) -> list[str]:
    block = next((block for block in star.blocks if block.name == "optics"), None)
    if block is None:
        return []
    name = next((item for item in ("rlnOpticsGroupName", "rlnOpticsGroup") if item in block.columns), None)
    return block.column(name) if name else []


def _pixel_sizes(sizes: Sequence[float | None], findings: list[Finding]) -> dict[str, Any]:
    counted = Counter(sizes)
    known = [size for size in counted if size is not None]
    if known and (None in counted or max(known) > 1.01 * min(known)):
        shown = ", ".join(
            f"{size:.4g} ({count} rows)" if size else f"unknown ({count} rows)"
            for size, count in sorted(counted.items(), key=str)
        )
        message = f"{len(counted)} different ones, in angstrom: {shown}; train and denoise them apart"
        findings.append(Finding("warning", "pixel size", message))
    elif not known:
        findings.append(Finding("note", "pixel size", "not given for any image"))
    return {"pixel_size_angstrom": sorted(counted, key=str)}


def _files(path: Path, findings: list[Finding]) -> dict[str, Any]:
    try:
        named = discover([str(path)], kind="either")
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
    findings.extend(pixel_size_findings(named))
    return {"micrographs": len(files), "micrographs_missing": len(missing)}
