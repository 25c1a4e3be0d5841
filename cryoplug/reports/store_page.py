"""Sections of a page on a store: contact sheet on one grey scale, mean and sigma of every micrograph, outliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryoplug.core.micrograph import ImageF32
from cryoplug.core.printable import printable_name
from cryoplug.outputs.pictures import grey_bytes, jpeg
from cryoplug.reports.big_table import Column, packed
from cryoplug.reports.html import counted
from cryoplug.reports.sections import BigTable, Chart, ContactSheet, Section
from cryoplug.reports.svg import Axis, Series, line_chart

MOST_PICTURES = 48
"""Most pictures on the contact sheet: about 400 KB in a page."""
PICTURE_PX = 160
OUTLYING = 5.0
"""A micrograph stands out if a number is this many robust deviations from the median."""
_LEAST_PART = 0.02
"""It must also differ by at least this part of the typical sigma, because simulated micrographs hardly differ at all."""
COLUMNS = (
    Column("micrograph", "The file whose patches are in the store.", "name", narrow=True),
    Column("split", "train: learnt from. test: kept aside for judging.", "phrase"),
    Column("patches", "Patches of it; 1 where it is stored whole."),
    Column("mean", "Mean of its pixels in its own grey values, as the normalization knows it.", narrow=True),
    Column(
        "sigma",
        "What became 1 on the normalised scale: its standard deviation (zscore), or the spread that stands for it.",
        narrow=True,
    ),
    Column("mean inside", "Mean of the stored pixels that were looked at; near 0 for zscore."),
    Column("sigma inside", "Standard deviation of them; near 1 for zscore. Empty: not looked at, the store is large."),
    Column("Å/px", "Pixel size in the store."),
    Column("stands out", "Which numbers lie far from those of all others.", "phrase", narrow=True, tone={}),
)


@dataclass(frozen=True, eq=False)
class StoreEntry:
    """One micrograph of a store."""

    name: str
    """Name as convert listed it."""
    split: str
    """train or test."""
    patches: int
    """Number of its stored images on each side."""
    mean: float
    """Grey value that became 0."""
    sigma: float
    """Grey values that became 1."""
    pixel_size_angstrom: float | None = None
    """None when unknown."""
    mean_inside: float | None = None
    """Mean of the normalised pixels that were read; None if none was read."""
    sigma_inside: float | None = None
    """Standard deviation of these pixels."""
    picture: ImageF32 | None = None
    """A small part of it, normalised; None if it was not read."""


def store_sections(entries: Sequence[StoreEntry], title: str = "Store") -> list[Section]:
    """Give contact sheet, charts and table of a store."""
    found = outliers(entries)
    bad = [index for index, text in enumerate(found) if text]
    sheet = _contact_sheet(entries, found)
    order = np.arange(1, len(entries) + 1)
    charts = [
        Chart(
            name,
            line_chart(
                [Series(name, order, values, 2, points=len(entries) <= 150)],
                Axis("micrograph, in the order of the store"),
                Axis("grey value"),
                title=f"{name} of each micrograph",
            ),
            caption,
        )
        for name, values, caption in (
            (
                "Mean",
                [entry.mean for entry in entries],
                "Steps are other grids, other gain references, another exposure.",
            ),
            (
                "Sigma",
                [entry.sigma for entry in entries],
                "Peaks are ice, carbon or empty holes; a step is another dose or another camera.",
            ),
        )
    ]
    lead = (
        f"{counted(len(bad), 'micrograph')} {'stands' if len(bad) == 1 else 'stand'} out: mean or sigma lies more than "
        f"{OUTLYING:g} robust deviations from the median. Look at them, and leave out what is ice, carbon or empty."
        if bad
        else "No micrograph stands out by its mean or sigma."
    )
    table = packed(
        COLUMNS,
        (
            (
                printable_name(entry.name),
                entry.split,
                entry.patches,
                entry.mean,
                entry.sigma,
                entry.mean_inside,
                entry.sigma_inside,
                entry.pixel_size_angstrom,
                text,
            )
            for entry, text in zip(entries, found, strict=True)
        ),
        bad=bad,
    )
    sections = [Section(f"{title}: contact sheet", [sheet])] if sheet.pictures else []
    sections.append(Section(f"{title}: mean and sigma", charts, lead))
    sections.append(Section(f"{title}: every micrograph", [BigTable(f"store {title}", "micrographs", COLUMNS, table)]))
    return sections


def outliers(entries: Sequence[StoreEntry]) -> list[str]:
    """Say, for each micrograph, which of its numbers stand out; empty if none does."""
    typical = float(np.median([entry.sigma for entry in entries])) if entries else 0.0
    texts: list[list[str]] = [[] for _ in entries]
    for name in ("mean", "sigma", "mean_inside", "sigma_inside"):
        values = np.array(
            [np.nan if getattr(entry, name) is None else getattr(entry, name) for entry in entries], float
        )
        scale = 1.0 if name.endswith("inside") else typical
        for index in np.flatnonzero(_far(values, least=_LEAST_PART * abs(scale))):
            texts[index].append(name.replace("_", " "))
    return [", ".join(parts) for parts in texts]


def choose_pictures(entries: Sequence[StoreEntry], most: int = MOST_PICTURES) -> list[int]:
    """Choose micrographs to show: those that stand out (at most a quarter), and others evenly spread."""
    if len(entries) <= most:
        return list(range(len(entries)))
    odd = [index for index, text in enumerate(outliers(entries)) if text][: most // 4]
    even = np.linspace(0, len(entries) - 1, most - len(odd)).round().astype(int)
    return sorted({*odd, *(int(index) for index in even)})


def _far(values: npt.NDArray[np.float64], *, least: float) -> npt.NDArray[np.bool_]:
    known = values[np.isfinite(values)]
    if len(known) < 5:
        return np.zeros(len(values), bool)
    low, middle, high = np.percentile(known, (25, 50, 75))
    limit = max(OUTLYING * (high - low) / 1.349, least)
    with np.errstate(invalid="ignore"):
        return np.abs(values - middle) > limit


def _contact_sheet(entries: Sequence[StoreEntry], found: Sequence[str]) -> ContactSheet:
    shown = [(index, entry.picture) for index, entry in enumerate(entries) if entry.picture is not None]
    if not shown:
        return ContactSheet([])
    spreads = []
    for _, picture in shown:
        finite = picture[np.isfinite(picture)]
        spreads.append(np.percentile(finite, (16, 50, 84)) if finite.size else (0.0, 0.0, 0.0))
    low, middle, high = np.median(np.array(spreads), axis=0)
    half = 3.5 * max((high - low) / 2, 1e-6)
    pictures = [
        (
            jpeg(grey_bytes(picture, float(middle - half), float(middle + half))),
            printable_name(entries[index].name.rpartition("/")[2]) + (f" ({found[index]})" if found[index] else ""),
            bool(found[index]),
        )
        for index, picture in shown
    ]
    some = (
        ""
        if len(shown) == len(entries)
        else f" {len(shown)} of {len(entries):,} are shown: those that stand out, and others evenly."
    )
    caption = (
        f"The middle of each micrograph as it was stored, all on one grey scale.{some} One that is darker, brighter or flatter "
        "than the others differs in ice or dose. Framed ones stand out by their numbers."
    )
    return ContactSheet(pictures, caption)
