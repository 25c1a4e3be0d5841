"""The STAR file that points RELION at denoised micrographs and remembers the raw ones."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryoplug.disk.atomic import storage_errors, write_bytes, write_text
from cryoplug.errors import FormatError, UsageError
from cryoplug.formats.star import IMAGE_COLUMN, MICROGRAPH_COLUMN, StarBlock, StarFile, format_star, image_table
from cryoplug.formats.star_frames import check_texts, star_from_tables
from cryoplug.formats.star_pixel_size import with_pixel_size
from cryoplug.inputs.discovered import split_section

RAW_COLUMN = "cryoplugMicrographNameRaw"
"""Column for the raw name, which stood in the table before."""
RAW_IMAGE_COLUMN = "cryoplugImageNameRaw"
"""The same for particles: sections of stacks."""


@dataclass(frozen=True)
class DenoisedMicrograph:
    """One row of a new table."""

    raw: Path
    """The micrograph as the user named it."""
    denoised: Path
    """The file that was made from it."""
    pixel_size_angstrom: float | None
    """Pixel size of both; None if unknown."""
    voltage_kv: float | None = None
    """Acceleration voltage; None if unknown."""
    spherical_aberration_mm: float | None = None
    """Spherical aberration of the microscope; None if unknown."""
    sections: int = 1
    """Number of images in the file; a stack is listed section by section."""


def star_from_star(
    star: StarFile,
    denoised: Mapping[int, Path],
    sections: Mapping[int, int] | None = None,
    *,
    pixel_size_angstrom: float | None = None,
) -> StarFile:
    """Point a STAR file at the denoised micrographs.

    Every table, column and row is kept as it is, the optics groups too. The table of micrographs (or of particles) has
    two exceptions. The name of the micrograph becomes that of the denoised one in every row that names it; a new column
    holds the raw name. Rows whose micrograph was not denoised are left out, so that nobody picks on raw pixels by
    accident. A table may name sections of stacks (``rlnImageName``) and no micrographs: the denoised section then has its
    own place in the denoised stack, or is the first section of a file of its own, ``000001@...``.

    Parameters
    ----------
    star
        The STAR file that was read.
    denoised
        For the first row that names a micrograph, the file made from it; later rows with the same name get the same file.
    sections
        For rows whose file is a whole stack, the section in it, from 1.
    pixel_size_angstrom
        Pixel size that the user states for all micrographs; it replaces the list's. None keeps the list's.
    """
    listed = image_table(star)
    table, names = listed.block, listed.names
    of_micrographs = listed.column == MICROGRAPH_COLUMN
    raw_column, alone = (RAW_COLUMN, "") if of_micrographs else (RAW_IMAGE_COLUMN, "000001@")
    places = {row: f"{section:06d}@" for row, section in (sections or {}).items()}
    by_name = {_same_file(names[row]): places.get(row, alone) + shown_path(path) for row, path in denoised.items()}
    kept = [index for index, name in enumerate(names) if _same_file(name) in by_name]
    raw = [names[index] for index in kept]
    rows = [table.rows[index] for index in kept]
    column = table.columns.index(raw_column) if raw_column in table.columns else None
    # A file that was denoised twice keeps the name of its very first source.
    first_raw = raw if column is None else [row[column] for row in rows]
    changed = replace(table, rows=rows).with_column(listed.column, [by_name[_same_file(name)] for name in raw])
    written = star.with_block(changed.with_column(raw_column, first_raw))
    return written if pixel_size_angstrom is None else with_pixel_size(written, pixel_size_angstrom)


def _same_file(name: str) -> tuple[int | None, str]:
    section, path = split_section(name)
    return section, os.path.normpath(path)


def check_star_can_name(path: Path, images: Iterable[Path], *, is_new: bool = False) -> None:
    """Raise `UsageError` if the STAR file `path` cannot hold a file name; check this before hours of work.

    A STAR file has one line for each row. So it cannot hold a name with a line break, or with spaces and both kinds of quotes.
    A table that `is_new`, made by starfile and not from another STAR file, can hold less: no tabulators, nor a quote in front.
    """
    for image in images:
        format_star(StarFile([StarBlock("", True, [MICROGRAPH_COLUMN], [[shown_path(image)]])], path))
        if is_new:
            try:
                check_texts([shown_path(image)], path, MICROGRAPH_COLUMN)
            except FormatError as error:
                raise UsageError(str(error)) from error


def star_from_files(path: Path, micrographs: Sequence[DenoisedMicrograph]) -> StarFile:
    """Make a STAR file of RELION 3.1 style with one optics group for each kind of microscope settings.

    Parameters
    ----------
    path
        Where it will be written.
    micrographs
        The rows, in order. A value that no micrograph has gets no column; if only some have it, the others get ``None``.
        Sections of stacks go into a table of their own, ``data_particles``.
    """
    groups = list(dict.fromkeys(map(_optics, micrographs)))
    number = {optics: index for index, optics in enumerate(groups, start=1)}
    optics: dict[str, list[object]] = {
        "rlnOpticsGroupName": [f"opticsGroup{index}" for index in number.values()],
        "rlnOpticsGroup": list(number.values()),
    }
    single = [item for item in micrographs if item.sections == 1]
    stacks = [item for item in micrographs if item.sections > 1]
    sizes = ["rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize"] if single else []
    sizes += ["rlnImagePixelSize"] if stacks else []
    for place, names in enumerate((sizes, ["rlnVoltage"], ["rlnSphericalAberration"])):
        values = [group[place] for group in groups]
        if any(value is not None for value in values):
            optics |= {name: [None if value is None else f"{value:.6f}" for value in values] for name in names}
    tables: dict[str, dict[str, list[object]]] = {
        "optics": {name: list(map(_text, rows)) for name, rows in optics.items()}
    }
    if single:
        tables["micrographs"] = {
            MICROGRAPH_COLUMN: [shown_path(item.denoised) for item in single],
            "rlnOpticsGroup": [number[_optics(item)] for item in single],
            RAW_COLUMN: [shown_path(item.raw) for item in single],
        }
    if stacks:
        rows = [(item, section) for item in stacks for section in range(1, item.sections + 1)]
        tables["particles"] = {
            IMAGE_COLUMN: [f"{section:06d}@{shown_path(item.denoised)}" for item, section in rows],
            "rlnOpticsGroup": [number[_optics(item)] for item, _ in rows],
            RAW_IMAGE_COLUMN: [f"{section:06d}@{shown_path(item.raw)}" for item, section in rows],
        }
    return star_from_tables(tables, path)


def _optics(item: DenoisedMicrograph) -> tuple[float | None, float | None, float | None]:
    """Give the settings as they are written; a cell in float32 makes pixel sizes that differ by 1e-7 for other shapes."""
    size = item.pixel_size_angstrom
    return None if size is None else round(size, 6), item.voltage_kv, item.spherical_aberration_mm


def _text(value: object) -> object:
    return "None" if value is None else value


def shown_path(path: Path) -> str:
    """Give a path as RELION expects it: from the working folder (the project) if it lies below, else from the root."""
    absolute = os.path.abspath(path)  # noqa: PTH100 -- resolving links would leave the project
    return absolute.removeprefix(os.getcwd().rstrip("/") + "/")  # noqa: PTH109 -- 100,000 times


def check_star_is_ours(path: Path, record: Path, *, overwrite: bool) -> None:
    """Raise `UsageError` if `path` exists, and no earlier run wrote it."""
    if path.is_dir():
        raise UsageError(f"{path}: this is a folder; --star names the STAR file to write")
    if overwrite or not path.exists():
        return
    with storage_errors(path):
        ours = record.read_text(encoding="ascii").split() if record.is_file() else []
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found not in ours:
        raise UsageError(f"{path}: exists, and no earlier run of this output folder wrote it; use --overwrite")


def write_own_star(path: Path, record: Path, star: StarFile) -> None:
    """Write the STAR file atomically, and a record of it beside the results, by which a later run recognises it."""
    payload = format_star(star).encode("utf-8", "surrogateescape")
    with storage_errors(path):
        old = path.read_bytes() if path.is_file() else None
    if old == payload:
        return
    # Both hashes: killed between the two writes, the old file is still known as ours.
    known = [payload] if old is None else [payload, old]
    write_text(record, "".join(hashlib.sha256(text).hexdigest() + "\n" for text in known))
    write_bytes(path, payload)
