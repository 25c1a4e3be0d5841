"""The page of a denoise run: written at its end; while a run watches, the page shows the last micrographs."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Any

from cryoplug.core.results import FileResult
from cryoplug.disk.atomic import storage_errors
from cryoplug.errors import InputError, StorageError, UsageError
from cryoplug.formats.registry import open_micrograph
from cryoplug.inference.messages import DenoiseResult
from cryoplug.outputs.journal import JOURNAL_NAME, last_lines
from cryoplug.outputs.planning import PlannedOutput
from cryoplug.reports.denoise_page import DenoiseReport, DenoiseRow, Featured, Live, denoise_page
from cryoplug.reports.featured import choose_featured, feature
from cryoplug.reports.html import shown_setting, write_page
from cryoplug.workflows.denoise.previews import Previews

REFRESH_S = 10.0
"""Seconds between two updates of a live page, in the file and in the browser."""
MOST_LAST = 60
"""Most rows on a live page, for the last micrographs and again for those that failed; so the page does not grow."""
_SHARE = 20
"""A live page waits this many times as long as writing it took before it is written again."""
_MINUTES = 120
_AT_ONCE = 4
"""Micrographs whose spectra are measured at a time."""


class RunPage:
    """Collects the result of each micrograph, and writes the page.

    Parameters
    ----------
    path
        Path of the page.
    folder
        The output folder.
    previews
        Pictures of the micrographs.
    details
        Settings of the run, as rows of the page; read when the page is written.
    checkpoint
        What people call it.
    """

    def __init__(
        self, path: Path, folder: Path, previews: Previews, details: Mapping[str, Any], *, checkpoint: str
    ) -> None:
        self.path = path
        self._folder = folder
        self._previews = previews
        self._details = details
        self._checkpoint = checkpoint
        self._started = time.monotonic()
        self._written_at = -math.inf
        self._took_s = 0.0
        self._status: dict[Path, str] = {}
        self._warned: set[Path] = set()
        self._last: deque[DenoiseRow] = deque(maxlen=MOST_LAST)
        self._failed: dict[Path, DenoiseRow] = {}
        self._minutes: Counter[int] = Counter()

    def take(self, target: Path, result: FileResult) -> None:
        """Keep the result of a micrograph for the live page."""
        row = self._row(target, result)
        self._status[target] = row.status
        self._failed.pop(target, None)
        self._warned.discard(target)
        if row.status == "failed":
            self._failed[target] = row
        elif row.is_problem:
            self._warned.add(target)
        if row.status == "done":
            self._minutes[self._minute()] += 1
        if row.status != "skipped":
            self._last.appendleft(row)

    def show_live(self, waiting: Sequence[str]) -> None:
        """Write the live page, unless it was written a moment ago; if writing fails, it is tried again later."""
        now = time.monotonic()
        if now - self._written_at < max(REFRESH_S, _SHARE * self._took_s):
            return
        self._written_at = now
        minute = self._minute()
        first = max(-minute, 1 - _MINUTES)
        # The minute that is going on is not over, so that its number says nothing yet.
        pace = [(float(place), float(self._minutes[minute + place])) for place in range(first, 0)]
        failed = [row for row in list(self._failed.values())[-MOST_LAST:] if row not in self._last]
        rows = [*self._last, *failed]
        report = self._report(
            rows, Counter(self._status.values()), len(self._warned), live=Live(REFRESH_S, waiting, pace)
        )
        with contextlib.suppress(StorageError):
            write_page(self.path, denoise_page(report))
        self._took_s = time.monotonic() - now

    def finish(self, planned: Sequence[PlannedOutput], results: Mapping[Path, FileResult]) -> Path:
        """Write the page of all micrographs.

        A page of an earlier run stays if this run had nothing to do, or might not touch any of its results.

        Raises
        ------
        StorageError
            The system refuses.
        """
        items = [item for item in planned if item.target in results]
        statuses: Counter[str] = Counter(results[item.target].status for item in items)
        if statuses["skipped"] == len(items) and not self._status and self._is_newest():
            return self.path
        refused = [results[item.target].exit_code == UsageError.exit_code for item in items]
        if items and all(refused) and self.path.is_file():
            return self.path
        before = self._earlier(items, results) if statuses["skipped"] else {}
        rows = [self._row(item.target, results[item.target], before.get(item.target)) for item in items]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            featured = list(pool.map(lambda at: self._feature(at, items[at], rows[at]), choose_featured(rows)))
        warned = sum(row.is_problem and row.status != "failed" for row in rows)
        report = self._report(rows, statuses, warned, featured=featured)
        write_page(self.path, denoise_page(report))
        return self.path

    def _report(
        self,
        rows: Sequence[DenoiseRow],
        counts: Mapping[str, int],
        problems: int,
        *,
        featured: Sequence[Featured] = (),
        live: Live | None = None,
    ) -> DenoiseReport:
        return DenoiseReport(
            folder=self._folder,
            page=self.path,
            rows=rows,
            counts=counts,
            problems=problems,
            settings=self._settings(),
            seconds=time.monotonic() - self._started,
            featured=featured,
            live=live,
            target=str(self._details.get("target", "image")),
        )

    def _settings(self) -> list[tuple[str, str]]:
        known = [(label, self._details.get(name)) for name, label in _SETTINGS]
        return [
            (label, shown_setting(value)) for label, value in [("checkpoint", self._checkpoint), *known] if _says(value)
        ]

    def _row(self, target: Path, result: FileResult, before: Mapping[str, Any] | None = None) -> DenoiseRow:
        numbers: Mapping[str, Any] = before or {}
        if isinstance(result, DenoiseResult):
            numbers = vars(result)
        path = self._previews.path_of(target) if result.status != "failed" else None
        return DenoiseRow(
            str(result.input),
            result.status,
            _text(numbers.get("message")) if before else result.message,
            sigma_in=_number(numbers.get("sigma_in")),
            sigma_out=_number(numbers.get("sigma_out")),
            hot_pixels=_count(numbers.get("hot_pixels")),
            pixel_size_angstrom=_number(numbers.get("pixel_size_angstrom")),
            seconds=_number(numbers.get("seconds")),
            picture=path.relative_to(self._folder) if path is not None and path.is_file() else None,
        )

    def _earlier(
        self, items: Sequence[PlannedOutput], results: Mapping[Path, FileResult]
    ) -> dict[Path, Mapping[str, Any]]:
        """Find the records of skipped micrographs in the journals of earlier runs and of other processes."""
        wanted: dict[PurePath, Path] = {
            item.target.relative_to(self._folder): item.target
            for item in items
            if results[item.target].status == "skipped"
        }
        # Each shard has a journal of its own until they are merged.
        return {wanted[name]: line for path in self._journals() for name, line in last_lines(path, wanted).items()}

    def _journals(self) -> list[Path]:
        """Give all journals of the folder; the common journal is the last."""
        own = Path(JOURNAL_NAME)
        return [*sorted(self._folder.glob(f"{own.stem}.*-*{own.suffix}")), self._folder / own]

    def _is_newest(self) -> bool:
        """Tell whether the page is newer than every journal."""
        try:
            written = self.path.stat().st_mtime_ns
            return all(path.stat().st_mtime_ns <= written for path in self._journals() if path.exists())
        except OSError:
            return False

    def _feature(self, index: int, item: PlannedOutput, row: DenoiseRow) -> Featured:
        path = self._previews.path_of(item.target)
        with storage_errors(path):
            picture = path.read_bytes()
        raw = item.micrograph
        written = row.pixel_size_angstrom
        try:
            with (
                open_micrograph(raw.path, section=raw.section or self._first(item)) as before,
                open_micrograph(item.target, section=self._first(item)) as after,
            ):
                size = None if written is None else written * after.shape[1] / before.shape[1]
                return feature(index, picture, before, after, pixel_size_angstrom=size, written_angstrom=written)
        except (InputError, StorageError):
            return Featured(index, picture)  # it went since, as scratch disks are emptied

    def _first(self, item: PlannedOutput) -> int | None:
        return 1 if item.micrograph.is_stack or item.target.suffix != ".mrc" else None

    def _minute(self) -> int:
        return int((time.monotonic() - self._started) // 60)


_SETTINGS = (
    ("model", "network"),
    ("checkpoint_sha256", "checkpoint (SHA-256)"),
    ("target", "target"),
    ("normalize", "normalization"),
    ("angpix", "pixel size that the network sees (Å)"),
    ("strength", "strength"),
    ("merge_highres", "raw beyond (Å)"),
    ("highpass", "high-pass (Å)"),
    ("lowpass", "low-pass (Å)"),
    ("output_angpix", "pixel size that is written (Å)"),
    ("tta", "mean of eight orientations"),
    ("device", "device"),
    ("precision", "precision"),
    ("dtype", "type of the pixels"),
)


def _says(value: Any) -> bool:
    return value is not None and value != ""


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
