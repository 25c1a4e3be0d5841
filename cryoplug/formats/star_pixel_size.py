"""Write another pixel size of the micrographs into a STAR file, only in the columns that its readers use."""

from __future__ import annotations

from cryoplug.formats.star import IMAGE_COLUMN, StarBlock, StarFile, image_table

_COLUMN = {"rlnImageName": "rlnImagePixelSize"}
_MICROGRAPHS = "rlnMicrographPixelSize"


def with_pixel_size(star: StarFile, angstrom: float) -> StarFile:
    """Give the STAR file with this pixel size for every micrograph that it lists.

    RELION 3.1 and later have it in the optics table. Without that table it is in the rows: as a pixel size, or, in RELION
    3.0, as the size of a detector pixel and the magnification.

    Parameters
    ----------
    star
        A file that lists micrographs, or particles as sections of stacks.
    angstrom
        The pixel size in angstrom. Particles that were cut from micrographs keep their own pixel size.
    """
    listed = image_table(star)
    column = _COLUMN.get(listed.column, _MICROGRAPHS)
    text = f"{angstrom:.6f}"
    optics = star.block("optics")
    if optics is not None and "rlnOpticsGroup" in listed.block.columns:
        star = star.with_block(_filled(optics, column, text))
        return star.with_block(_filled(listed.block, column, text)) if column in listed.block.columns else star
    table = listed.block
    in_detector = {"rlnDetectorPixelSize", "rlnMagnification"} <= set(table.columns)
    if not in_detector or column in table.columns:
        return star.with_block(_filled(table, column, text))
    if listed.column != IMAGE_COLUMN and IMAGE_COLUMN in table.columns:
        return star.with_block(_filled(table, column, text))  # the detector's describes the particles
    return star.with_block(_with_detector(table, angstrom))


def _filled(block: StarBlock, column: str, text: str) -> StarBlock:
    return block.with_column(column, [text] * len(block.rows))


def _with_detector(table: StarBlock, angstrom: float) -> StarBlock:
    # Micrometres on the detector: a magnification of 10000 makes them angstrom.
    changed = table.with_column("rlnMagnification", ["10000.000000"] * len(table.rows))
    return changed.with_column("rlnDetectorPixelSize", [f"{angstrom:.6f}"] * len(table.rows))
