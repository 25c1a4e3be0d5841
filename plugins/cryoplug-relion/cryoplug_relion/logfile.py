"""``logfile.pdf``: the pages that RELION's Display button opens."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from cryoplug.disk.atomic import write_bytes
from cryoplug.errors import StorageError
from cryoplug.reports.figures import draw_losses, new_figure

from cryoplug_relion.pictures import Image, View, grey_limits

FILE_NAME = "logfile.pdf"
_PAGE_INCHES = (11.7, 8.3)
_DPI = 150
_LINES = 46
_LETTERS = 140
_MOST_LISTED = 100
_RAW, _DENOISED = "#4477aa", "#cc3311"


class Logfile:
    """Collects pages, and writes them when the block ends without an error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._buffer = io.BytesIO()
        self._pages: Any = None

    def __enter__(self) -> Logfile:
        from matplotlib.backends.backend_pdf import PdfPages

        self._pages = PdfPages(self._buffer, metadata={"Creator": "cryoplug", "CreationDate": None})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pages.close()
        if kind is None:
            write_bytes(self._path, self._buffer.getvalue())

    def text(self, title: str, lines: Sequence[str]) -> None:
        """Add pages of text; long lines are cut in the middle, because names differ at their ends."""
        for start in range(0, max(len(lines), 1), _LINES):
            figure = new_figure(*_PAGE_INCHES)
            figure.text(0.05, 0.94, title, fontsize=15, weight="bold")
            shown = "\n".join(_shortened(line) for line in lines[start : start + _LINES])
            # A dollar would begin a formula.
            figure.text(
                0.05, 0.90, shown.replace("$", r"\$"), fontsize=9, family="monospace", va="top", linespacing=1.5
            )
            self._add(figure)

    def before_after(self, title: str, raw: View, denoised: View, remarks: Sequence[str]) -> None:
        """Add a page with a micrograph before and after: the whole, the middle, and the power spectra of the middle."""
        figure = new_figure(*_PAGE_INCHES)
        figure.suptitle(_shortened(title).replace("$", r"\$"), fontsize=11)
        grid = figure.add_gridspec(2, 3, width_ratios=(1, 1, 1.05), left=0.03, right=0.97, bottom=0.08, top=0.9)
        for column, (caption, shown) in enumerate((("raw", raw), ("denoised", denoised))):
            for row, (part, image) in enumerate((("", shown.overview), (", middle", shown.detail))):
                _picture(figure.add_subplot(grid[row, column]), image, caption + part)
        _spectra(figure.add_subplot(grid[0, 2]), raw, denoised)
        notes = figure.add_subplot(grid[1, 2])
        notes.set_axis_off()
        notes.text(0.05, 0.95, "\n".join(remarks).replace("$", r"\$"), va="top", fontsize=9, linespacing=1.6)
        self._add(figure)

    def panels(self, title: str, rows: Sequence[Mapping[str, Image]]) -> None:
        """Add a page with rows of pictures, each picture with its caption and grey scale."""
        figure = new_figure(*_PAGE_INCHES)
        figure.suptitle(title, fontsize=12)
        grid = figure.subplots(len(rows), max(len(row) for row in rows), squeeze=False)
        for axes, row in zip(grid, rows, strict=True):
            for place in axes[len(row) :]:
                place.set_axis_off()
            for place, (caption, image) in zip(axes, row.items(), strict=False):
                _picture(place, image, caption)
        figure.tight_layout()
        self._add(figure)

    def losses(self, title: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Add a page with the losses of a training run."""
        figure = new_figure(*_PAGE_INCHES)
        axes = figure.add_subplot()
        draw_losses(axes, records)
        axes.set_title(title)
        self._add(figure)

    def _add(self, figure: Any) -> None:
        self._pages.savefig(figure, dpi=_DPI)


def check_logfile(path: Path) -> None:
    """Read a PDF back.

    Raises
    ------
    StorageError
        The file does not begin or end like a PDF.
    """
    payload = path.read_bytes()
    if not payload.startswith(b"%PDF-") or not payload.rstrip().endswith(b"%%EOF"):
        raise StorageError(f"{path}: reading it back gave no whole PDF; check the disk")


def listed(title: str, items: Sequence[str]) -> list[str]:
    """Give a list as lines below its title; nothing for an empty list, only the beginning of a very long one."""
    if not items:
        return []
    more = [f"  and {len(items) - _MOST_LISTED} more; see run.out and run.err"] if len(items) > _MOST_LISTED else []
    return ["", title, *(f"  {item}" for item in items[:_MOST_LISTED]), *more]


def _picture(axes: Any, image: Image, caption: str) -> None:
    low, high = grey_limits(image)
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set_title(f"{caption} ({low:.4g} to {high:.4g})", fontsize=9)
    axes.set_axis_off()


def _spectra(axes: Any, raw: View, denoised: View) -> None:
    size = denoised.pixel_size_angstrom
    for shown, label, colour in ((raw, "raw", _RAW), (denoised, "denoised", _DENOISED)):
        axes.semilogy(shown.frequency / (size or 1), shown.power, label=label, color=colour)
    axes.set_xlabel("cycles per pixel" if size is None else "1/Å")
    axes.set_title("power spectra of the middle", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)


def _shortened(line: str) -> str:
    if len(line) <= _LETTERS:
        return line
    half = (_LETTERS - 3) // 2
    return f"{line[:half]}...{line[-half:]}"
