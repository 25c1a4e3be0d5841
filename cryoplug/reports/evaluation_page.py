"""The page of an evaluation: verdict, figures beside the baselines, curves, panels, and every micrograph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryoplug.core.micrograph import ImageF32
from cryoplug.core.printable import printable_name
from cryoplug.metrics.evaluation import DENOISED, HalvesReport, TruthReport
from cryoplug.metrics.verdict import ALIKE, BETTER, WORSE
from cryoplug.reports.big_table import Column, packed
from cryoplug.reports.evaluation import Summary
from cryoplug.reports.evaluation_sections import halves_charts, summary_grids, truth_charts
from cryoplug.reports.grey_panels import detail, panels, small
from cryoplug.reports.html import counted, shown_number
from cryoplug.reports.sections import BigTable, Facts, Page, Section, sections_page

PANEL_PX = 420
_TONES = {BETTER: "good", ALIKE: "warn", WORSE: "bad"}
COLUMNS = (
    Column("micrograph", "The file that was judged.", "name", narrow=True),
    Column(
        "status", "done, or failed: the remark says why.", "phrase", narrow=True, tone={"failed": "bad", "done": "good"}
    ),
    Column(
        "gain dB",
        "Signal-to-noise ratio of the denoised micrograph less that of the raw one, in decibels: by the truth, else by "
        "the halves. Above 0 something was gained.",
        narrow=True,
    ),
    Column("SNR dB", "Of the denoised micrograph, after the best a*x + b."),
    Column("over Gaussian dB", "The same less that of the best Gaussian blur. Above 0 it is worth more than a blur."),
    Column("Å/px", "Pixel size."),
    Column("remark", "Why it failed, or what to keep in mind.", "phrase", long=True),
)


@dataclass(frozen=True, eq=False)
class JudgedRow:
    """One micrograph of an evaluation."""

    name: str
    """Name of the file, as the user knows it."""
    status: str
    """done or failed."""
    message: str = ""
    """Why it failed, or a remark."""
    truth: TruthReport | None = None
    """Figures by the truth; None without a truth."""
    halves: HalvesReport | None = None
    """Figures by halves; None without halves."""
    pixel_size_angstrom: float | None = None
    """Pixel size; None if unknown."""

    def cells(self) -> tuple[object, ...]:
        """Give the values of the columns."""
        snr: dict[str, float] = {}
        if self.truth is not None:
            snr = {method: score.snr_db for method, score in self.truth.scores.items()}
        elif self.halves is not None:
            snr = {method: score.snr_fitted_db for method, score in self.halves.scores.items()}
        denoised = snr.get(DENOISED)
        gains = [
            None if denoised is None or than not in snr else denoised - snr[than] for than in ("identity", "gaussian")
        ]
        return (
            printable_name(self.name),
            self.status,
            gains[0],
            denoised,
            gains[1],
            self.pixel_size_angstrom,
            printable_name(self.message.removeprefix(f"{self.name}: ")),
        )


def evaluation_page(
    folder: Path,
    words: Sequence[str],
    summary: Summary,
    rows: Sequence[JudgedRow],
    pictures: Mapping[str, ImageF32],
    *,
    about: Sequence[tuple[str, str]],
) -> str:
    """Write the page.

    Parameters
    ----------
    folder
        Folder of the evaluation.
    words
        The verdict.
    summary
        Means over the micrographs.
    rows
        Every micrograph, in order.
    pictures
        Images of the first micrograph by caption: raw, denoised, Gaussian, truth (if there is one), denoised noise.
    about
        Names and values: what was judged, and how.
    """
    truth = [row.truth for row in rows if row.truth is not None]
    halves = [row.halves for row in rows if row.halves is not None]
    sizes = {row.pixel_size_angstrom for row in rows if row.status == "done"}
    size = sizes.pop() if len(sizes) == 1 else None
    charts = [*(truth_charts(truth, size) if truth else ()), *(halves_charts(halves, size) if halves else ())]
    sections = []
    if pictures:
        first = next(row.name for row in rows if row.status == "done")
        sections.append(_look(first, pictures, size, _hallucination(summary)))
    lead = "A network must beat the raw micrograph and a Gaussian blur."
    sections.append(Section("Beside simple filters", summary_grids(summary), lead))
    if charts:
        sections.append(Section("By resolution", charts))
    bad = [index for index, row in enumerate(rows) if row.message]
    table = packed(COLUMNS, (row.cells() for row in rows), bad=bad)
    sections.append(Section("Every micrograph", [BigTable("micrographs", "micrographs", COLUMNS, table)]))
    sections.append(Section("How it was judged", [Facts(about)]))
    done, failed = (sum(row.status == status for row in rows) for status in ("done", "failed"))
    tiles = [("micrographs judged", f"{done:,}", ""), ("failed", f"{failed:,}", "bad" if failed else "")]
    if summary.verdict is not None:
        for than, name in (("identity", "over the raw micrograph"), ("gaussian", "over the best Gaussian")):
            found = summary.verdict.comparisons[than]
            gain = f"{found.gain_db:+.2f}" if math.isfinite(found.gain_db) else "-"
            tiles.append((f"dB {name}", gain, _TONES[found.answer]))
    headline = f"{counted(done, 'micrograph')} judged"
    return sections_page(Page("evaluate", headline, str(folder), sections, words, tiles))


def _look(name: str, pictures: Mapping[str, ImageF32], pixel_size_angstrom: float | None, invented: str) -> Section:
    """Show one micrograph, and its middle."""
    clean = [caption for caption in pictures if caption in ("denoised", "truth")]
    whole = {caption: small(image, PANEL_PX) for caption, image in pictures.items()}
    middle = {caption: detail(image) for caption, image in pictures.items()}
    of_whole = None if pixel_size_angstrom is None else pixel_size_angstrom * _times_smaller(pictures, whole)
    lead = (
        f"{printable_name(name)}. A step of grey means as much in every panel. “denoised noise” is pure noise "
        "through the same denoiser: structure that you see there is invented."
    )
    blocks = [
        panels(images, clean=clean, noisy=["raw"], caption=caption, pixel_size_angstrom=size)
        for images, caption, size in (
            (whole, "The whole micrograph.", of_whole),
            (middle, f"Its middle, pixel by pixel.{invented}", pixel_size_angstrom),
        )
    ]
    return Section("Look", blocks, lead)


def _times_smaller(before: Mapping[str, ImageF32], after: Mapping[str, ImageF32]) -> float:
    """Give how many pixels of a row became one."""
    name = next(iter(before))
    return before[name].shape[1] / after[name].shape[1]


def _hallucination(summary: Summary) -> str:
    found = (summary.hallucination or {}).get(DENOISED)
    if not found:
        return ""
    share = shown_number(100 * found["share"].mean, 3)
    return (
        f" Pure noise through the denoiser leaves {share} % of the variance of a denoised micrograph. That is what it may "
        "invent; the last panel shows it."
    )
