"""One look at a micrograph: a single reading answers everything that must be known before its pixels are used."""

from __future__ import annotations

from collections.abc import Sequence

from cryoplug.core.bad_border import BadBorder
from cryoplug.core.correlation import ImageSample, ImageSampler, whole_boxes
from cryoplug.core.hot_pixels import HotPixelFinder, limits_of_sorted
from cryoplug.core.micrograph import MicrographSource
from cryoplug.core.normalization import QUANTILES, MeasuredSource
from cryoplug.core.quantiles import QuantileSearch, sorted_finite
from cryoplug.core.repairs import RepairedMicrograph, Repairs, with_sound_border
from cryoplug.core.sampled_rows import read_sampled_rows
from cryoplug.core.statistics import ExtremesScan, PixelExtremes


class LookedAt(MeasuredSource):
    """A micrograph that was measured while it was read once; anything not measured then needs another reading.

    Parameters
    ----------
    source
        The micrograph, repaired if that was asked for.
    extremes
        Its extremes.
    search
        The pixels kept for its quantiles; None if nothing was kept.
    sample
        Sample for comparing it with another one; None if it was not asked for, or not all pixels are finite.
    """

    def __init__(
        self,
        source: MicrographSource,
        extremes: PixelExtremes,
        search: QuantileSearch | None,
        sample: ImageSample | None,
    ) -> None:
        super().__init__(source)
        self.source = source
        self.sample = sample
        self._extremes = extremes
        self._search = search

    def extremes(self) -> PixelExtremes:
        """Give the extremes, which are known already."""
        return self._extremes

    def quantiles(self, fractions: Sequence[float], *, positive_only: bool = False) -> tuple[float, ...]:
        """Give exact quantiles of finite pixels."""
        found = None
        if self._search is not None and self._search.answers(fractions, positive_only=positive_only):
            found = self._search.quantiles()
        return found or super().quantiles(fractions, positive_only=positive_only)


def look_at(source: MicrographSource, kind: str, *, repair: bool, sample: bool) -> LookedAt:
    """Read a micrograph once, and keep what `cryoplug.core.normalization.fit_to` and a comparison will need.

    Parameters
    ----------
    source
        The opened micrograph; it is closed together with the result.
    kind
        Kind of normalization; decides which quantiles to look for.
    repair
        Whether to repair a bad border and hot pixels before anything else.
    sample
        Whether it will be compared with another image.
    """
    shape = source.shape
    sound, sampled, border = with_sound_border(source) if repair else (source, read_sampled_rows(source), BadBorder())
    known = sorted_finite(sampled)
    finder = HotPixelFinder(sound.read_rows, shape, limits_of_sorted(known) if repair else None)
    scan = ExtremesScan(shape)
    question = QUANTILES.get(kind)
    search = None
    if question is not None:
        search = QuantileSearch(known, shape, question.fractions, positive_only=question.positive_only)
    sampler = ImageSampler(shape) if sample else None
    step = whole_boxes(shape)
    for start in range(0, shape[0], step):
        rows = sound.read_rows(start, min(start + step, shape[0]))
        finder.add(start, rows).repair(rows, start)
        scan.add(start, rows)
        if not scan.all_finite:
            continue  # It will be refused; only how many such pixels there are is still of interest.
        if search is not None:
            search.add(rows)
        if sampler is not None:
            sampler.add(start, rows)
    repairs = Repairs(finder.hot(), border)
    seen = source
    if repairs:
        seen = RepairedMicrograph(source, repairs)
        seen.warnings = (*source.warnings, repairs.remark)
    if not scan.all_finite:
        return LookedAt(seen, scan.extremes(), None, None)
    return LookedAt(seen, scan.extremes(), search, None if sampler is None else sampler.sample())
