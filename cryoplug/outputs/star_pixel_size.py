"""Pixel sizes, optics groups and coordinates of a STAR file whose micrographs were written on a coarser grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cryoplug.formats.star import StarBlock, StarFile, image_table

SIZE_COLUMNS = ("rlnMicrographPixelSize", "rlnImagePixelSize")
"""Columns with the pixel size of the files in the table; ``rlnMicrographOriginalPixelSize`` is the movie's, and stays."""
_COORDINATES = ("rlnCoordinateX", "rlnCoordinateY")
_GROUP, _GROUP_NAME = "rlnOpticsGroup", "rlnOpticsGroupName"
_SAME = 1e-3
"""Relative difference of pixel sizes below which micrographs stay in one optics group."""


def with_written_sizes(star: StarFile, written: Callable[[str], float | None]) -> StarFile:
    """Put the pixel sizes of the written files into the STAR file.

    RELION takes the pixel size of a micrograph from its optics group, so the group gets the size of the files. If
    micrographs of one group were written at different sizes, the group is copied, one for each size. Coordinates in the same
    table are converted to pixels of the new files. Everything else stays, also the raw names.

    Parameters
    ----------
    star
        The STAR file; it already names the written files.
    written
        Gives the pixel size in angstrom of the file that a row names; None if unknown.
    """
    listed = image_table(star)
    table, raw = listed.block, listed.pixel_sizes
    sizes = [written(name) for name in listed.names]
    ratios = [new / old if new and old else 1.0 for new, old in zip(sizes, raw, strict=True)]
    for column in SIZE_COLUMNS:
        if column in table.columns:
            table = table.with_column(column, _size_texts(table.column(column), sizes))
    if "rlnDetectorPixelSize" in table.columns and "rlnMagnification" in table.columns:
        detector = [
            _scaled(text, ratio) for text, ratio in zip(table.column("rlnDetectorPixelSize"), ratios, strict=True)
        ]
        table = table.with_column("rlnDetectorPixelSize", detector)
    for column in _COORDINATES:
        if column in table.columns:
            moved = [_scaled(text, 1 / ratio) for text, ratio in zip(table.column(column), ratios, strict=True)]
            table = table.with_column(column, moved)
    optics = star.block("optics")
    if optics is None or _GROUP not in optics.columns or _GROUP not in table.columns:
        return star.with_block(table)
    optics, groups = _regrouped(optics, table.column(_GROUP), sizes)
    return star.with_block(table.with_column(_GROUP, groups)).with_block(optics)


def _regrouped(optics: StarBlock, groups: Sequence[str], sizes: Sequence[float | None]) -> tuple[StarBlock, list[str]]:
    """Give the optics table with the pixel sizes of the files, and the group of each row."""
    rows = [dict(zip(optics.columns, row, strict=True)) for row in optics.rows]
    by_group = {_number(row[_GROUP]): row for row in rows}
    found: dict[str, list[tuple[float, str]]] = {}
    result = []
    for group, size in zip(groups, sizes, strict=True):
        row = by_group.get(_number(group))
        if row is None or size is None:
            result.append(group)
            continue
        seen = found.setdefault(_number(group), [])
        known = next((name for other, name in seen if abs(other - size) <= _SAME * size), None)
        if known is None and not seen:
            known = group
            row.update({column: f"{size:.6f}" for column in SIZE_COLUMNS if column in row})
        elif known is None:
            known = str(1 + max(int(number) for number in by_group if number.isdigit()))
            copy = {**row, _GROUP: known, **{column: f"{size:.6f}" for column in SIZE_COLUMNS if column in row}}
            if _GROUP_NAME in copy:
                copy[_GROUP_NAME] = f"{row[_GROUP_NAME]}_{size:.4g}A"
            rows.append(copy)
            by_group[known] = copy
        if (size, known) not in seen:
            seen.append((size, known))
        result.append(known)
    return replace(optics, rows=[[row[column] for column in optics.columns] for row in rows]), result


def _size_texts(before: Sequence[str], sizes: Sequence[float | None]) -> list[str]:
    return [text if size is None else f"{size:.6f}" for text, size in zip(before, sizes, strict=True)]


def _scaled(text: str, ratio: float) -> str:
    try:
        return f"{float(text) * ratio:.6f}" if ratio != 1.0 else text
    except ValueError:
        return text


def _number(group: str) -> str:
    try:
        return str(int(float(group)))
    except (ValueError, OverflowError):
        return group
