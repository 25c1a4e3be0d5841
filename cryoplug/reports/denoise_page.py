"""The page of a denoise run: pictures, one row for each micrograph, and the settings."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryoplug.core.printable import printable_name
from cryoplug.outputs.previews import GAP_PX, STRIP_PX
from cryoplug.reports.big_table import Column, legend, packed
from cryoplug.reports.html import counted, data_uri, render, shown_duration
from cryoplug.reports.svg import Axis, Series, line_chart

COLUMNS = (
    Column("micrograph", "The file that was denoised.", "name", narrow=True),
    Column(
        "status",
        "done: in this run. skipped: finished by an earlier run, or by another process. failed: the remark says why.",
        "phrase",
        narrow=True,
        tone={"failed": "bad", "done": "good"},
    ),
    Column(
        "removed",
        "Part of the variance that is gone: 1 - (sigma out / sigma in)². It is near 1 at low dose. Look at micrographs whose "
        "value is far from all others.",
        narrow=True,
    ),
    Column("sigma in", "Standard deviation of the raw micrograph, in its grey values."),
    Column("sigma out", "Standard deviation of the denoised one."),
    Column("hot pixels", "Pixels far above all others; the median of their neighbours replaced them before denoising."),
    Column("Å/px", "Pixel size that was written."),
    Column("seconds", "From opening the file to its final name. Several files are under way at a time."),
    Column("remark", "Why it failed, or what to keep in mind.", "phrase"),
)


@dataclass(frozen=True)
class DenoiseRow:
    """One micrograph."""

    name: str
    """Name of the file, as the user knows it."""
    status: str
    """done, skipped or failed."""
    message: str = ""
    """Why it failed; else a warning."""
    sigma_in: float | None = None
    """Standard deviation of the micrograph."""
    sigma_out: float | None = None
    """Standard deviation of the result."""
    hot_pixels: int | None = None
    """Number of hot pixels that were repaired."""
    pixel_size_angstrom: float | None = None
    """Pixel size of the result."""
    seconds: float | None = None
    """Wall time."""
    picture: Path | None = None
    """The preview, below the output folder; None if there is none."""

    @property
    def removed(self) -> float | None:
        """Part of the variance that was removed."""
        if not self.sigma_in or self.sigma_out is None:
            return None
        return 1 - (self.sigma_out / self.sigma_in) ** 2

    @property
    def is_problem(self) -> bool:
        """Whether somebody should look at it, because it failed or has a warning."""
        return self.status == "failed" or (self.status == "done" and bool(self.message))

    def cells(self) -> tuple[Any, ...]:
        """Give the values of the columns, in their order."""
        skipped = self.status == "skipped"
        return (
            printable_name(self.name),
            self.status,
            self.removed,
            self.sigma_in,
            self.sigma_out,
            self.hot_pixels,
            self.pixel_size_angstrom,
            None if skipped else self.seconds,
            printable_name(self.message.removeprefix(f"{self.name}: ")),
        )


@dataclass(frozen=True, eq=False)
class Featured:
    """A micrograph whose picture and spectrum are inside the page."""

    row: int
    """Number of its row."""
    picture: bytes
    """JPEG of three panels; see `cryoplug.outputs.previews`."""
    spectrum: bytes | None = None
    """JPEG, raw on the left, denoised on the right; None if the image is too small."""
    rings: Sequence[tuple[float, str]] = ()
    """Radius of each ring as a part of the picture's side, and its label."""
    chart: str = ""
    """SVG of the mean power in rings."""


@dataclass(frozen=True)
class Live:
    """Further contents of a page while the run goes on."""

    refresh_s: float
    """Seconds after which the page reloads itself."""
    waiting: Sequence[str]
    """Sentences about what the run waits for."""
    per_minute: Sequence[tuple[float, float]]
    """Minutes before now (0 or less) and micrographs finished in each minute then."""


@dataclass(frozen=True)
class DenoiseReport:
    """All contents of the page."""

    folder: Path
    """The output folder."""
    page: Path
    """Path of the page; addresses of pictures are relative to it."""
    rows: Sequence[DenoiseRow]
    """Micrographs, in input order; while the run goes on, the last ones and all that failed."""
    counts: Mapping[str, int]
    """Number of micrographs with each status, over all micrographs, not only `rows`."""
    problems: int
    """Number of micrographs with a warning, over all micrographs."""
    settings: Sequence[tuple[str, str]]
    """Names and values of the settings."""
    seconds: float
    """Wall time of the run so far."""
    featured: Sequence[Featured] = ()
    """Micrographs with picture and spectrum inside the page."""
    live: Live | None = None
    """Further contents while the run goes on; None at its end."""
    target: str = "image"
    """What was written, ``image`` or ``particles``: what may be seen in the removed part depends on it."""
    next_step: str = ""
    """A command or a sentence: what to do next."""


def denoise_page(report: DenoiseReport) -> str:
    """Write the page.

    Returns
    -------
    str
        Complete HTML: it contains the pictures of `DenoiseReport.featured`, and links to the others beside it.
    """
    done = report.counts.get("done", 0)
    skipped, failed = report.counts.get("skipped", 0), report.counts.get("failed", 0)
    base = os.path.relpath(report.folder, report.page.parent or ".")
    bad = [index for index, row in enumerate(report.rows) if row.is_problem]
    first = next((index for index, row in enumerate(report.rows) if row.picture is not None), 0)
    table = packed(COLUMNS, (row.cells() for row in report.rows), bad=bad, first=first)
    data = {
        "table": table,
        "pictures": [None if row.picture is None else _address(row.picture) for row in report.rows],
        "featured": [item.row for item in report.featured],
        "featuredPictures": [data_uri(item.picture) for item in report.featured],
        "base": "" if base == "." else _address(Path(base)) + "/",
        "noPicture": "No picture: this micrograph was not denoised, or --no-previews was given.",
        "live": report.live.refresh_s if report.live else None,
    }
    tiles = [("denoised", f"{done:,}", "")]
    if skipped:
        tiles.append(("done before", f"{skipped:,}", ""))
    tiles.append(("failed", f"{failed:,}", "bad" if failed else ""))
    tiles.append(("with a warning", f"{report.problems:,}", "warn" if report.problems else ""))
    if done and report.seconds > 0:
        tiles.append(("micrographs a minute", _rate(60 * done / report.seconds), ""))
    tiles.append(("wall time", shown_duration(report.seconds), ""))
    live = None
    if report.live:
        live = {
            "written": int(time.time()),
            "waiting": report.live.waiting,
            "chart": _throughput(report.live.per_minute),
        }
    featured = counted(len(report.featured), "micrograph has one", "micrographs have one")
    shown = sum(report.counts.values()) - len(report.rows)
    return render(
        "denoise",
        title=f"{'Live' if live else 'Denoised'}: {printable_name(report.folder.name or report.folder)}",
        data=data,
        headline=_headline(done, skipped, failed, live=bool(live)),
        folder=str(report.folder),
        words=_words(report, done + skipped, failed),
        tiles=tiles,
        rows=bool(report.rows),
        target=report.target,
        featured=report.featured,
        spectra=f"{featured}, spread over the run",
        gap=GAP_PX,
        strip=STRIP_PX,
        table_title="The last micrographs, and all that failed" if live and shown > 0 else "Every micrograph",
        legend=legend(COLUMNS),
        settings=[(label, printable_name(value)) for label, value in report.settings],
        live=live,
    )


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _headline(done: int, skipped: int, failed: int, *, live: bool) -> str:
    good = counted(done + skipped, "micrograph") + " denoised"
    if live:
        return f"{good} so far" + (f", {failed:,} failed" if failed else "")
    return good + (f", {failed:,} failed" if failed else "")


def _words(report: DenoiseReport, good: int, failed: int) -> list[str]:
    lines = []
    if failed:
        lines.append(
            f"{counted(failed, 'micrograph')} failed. Tick “problems only” in the table to read why; "
            "the same command tries them again."
        )
    if report.problems:
        have = "has a warning" if report.problems == 1 else "have a warning"
        where = "The column “remark” says what it is; on a narrow screen, scroll the table to the right."
        lines.append(f"{counted(report.problems, 'micrograph')} {have}. {where}")
    if good and not report.live:
        lines.append(
            "Look at a few micrographs before you pick. Pick on the denoised ones; extract particles from the raw ones."
        )
    if report.next_step:
        lines.append(report.next_step)
    return lines


def _address(path: Path) -> str:
    """Write a path as a relative address, whatever bytes its name has."""
    text = quote(os.fsencode(path), safe="/")
    # "a:b/c" would be an address of scheme "a".
    return f"./{text}"


def _throughput(per_minute: Sequence[tuple[float, float]]) -> str:
    if len(per_minute) < 2:
        return ""
    series = Series("micrographs a minute", [at for at, _ in per_minute], [count for _, count in per_minute], 2)
    top = max(count for _, count in per_minute)
    return line_chart(
        [series],
        Axis("minutes before now"),
        Axis("micrographs a minute", limits=(0.0, max(1.0, 1.08 * top))),
        title="micrographs finished in each minute",
    )
