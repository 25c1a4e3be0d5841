"""The figures of an evaluation as a STAR file: one row a micrograph, for RELION's tools, spreadsheets and scripts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryoplug.formats.star import IMAGE_COLUMN, MICROGRAPH_COLUMN, StarFile
from cryoplug.formats.star_frames import star_from_tables
from cryoplug.workflows.evaluate.measure import MeasuredMicrograph


def evaluation_star(measured: Sequence[MeasuredMicrograph], path: Path) -> StarFile:
    """List micrographs with their figures.

    Parameters
    ----------
    measured
        The measured micrographs, in order.
    path
        Path of the file.

    Returns
    -------
    StarFile
        Table ``micrographs``, or ``particles`` if all are sections of stacks. The columns are called
        ``cryoplug``, then ``Truth`` or ``Halves``, the method, and the figure, as in ``evaluation.json``:
        ``cryoplugTruthDenoisedSnrDb``. A figure that no micrograph has gets no column; if only some have it,
        the others get ``None``.
    """
    rows = [_figures(item) for item in measured]
    names = dict.fromkeys(name for row in rows for name in row)
    sections = all("@" in item.name.parts[0] for item in measured)
    table: dict[str, list[Any]] = {
        IMAGE_COLUMN if sections else MICROGRAPH_COLUMN: [str(item.name) for item in measured]
    }
    table |= {name: [row.get(name, "None") for row in rows] for name in names}
    return star_from_tables({"particles" if sections else "micrographs": table}, path)


def _figures(item: MeasuredMicrograph) -> dict[str, str]:
    found: dict[str, str] = {}
    if item.pixel_size_angstrom is not None:
        found["rlnMicrographPixelSize"] = f"{item.pixel_size_angstrom:.6f}"
    for kind, report in (("Truth", item.found.truth), ("Halves", item.found.halves)):
        scores: Mapping[str, Any] = {} if report is None else report.scores
        for method, score in scores.items():
            for name, value in dataclasses.asdict(score).items():
                if isinstance(value, (int, float)):
                    found[f"cryoplug{kind}{_capitals(method)}{_capitals(name)}"] = f"{value:.6g}"
    return found


def _capitals(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.replace("-", "_").split("_"))
