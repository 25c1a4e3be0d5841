"""One look at a micrograph: everything that is asked about its pixels before they are used, from one reading."""

from __future__ import annotations

from collections.abc import Sequence

from cryoplug.core.correlation import ImageSample, ImageSampler, whole_boxes
from cryoplug.core.hot_pixels import HotPixelFinder, RepairedMicrograph, limits_of_sorted
from cryoplug.core.micrograph import MicrographSource
from cryoplug.core.normalization import QUANTILES, MeasuredSource
from cryoplug.core.quantiles import QuantileSearch, sorted_finite
from cryoplug.core.sampled_rows import read_sampled_rows
from cryoplug.core.statistics import ExtremesScan, PixelExtremes


class LookedAt(MeasuredSource):
    """A micrograph whose questions were answered while it was read once; what was not asked then is read for.

    Parameters
    ----------
    source
        The micrograph, its hot pixels repaired if that was asked.
    extremes
        Of it.
    search
        What was kept for its quantiles; None: nothing.
    sample
        For comparing it with another one; None: not asked for, or not all pixels are finite.
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
        """Give what was found."""
        return self._extremes

    def quantiles(self, fractions: Sequence[float], *, positive_only: bool = False) -> tuple[float, ...]:
        """Give exact quantiles of finite pixels."""
        found = None
        if self._search is not None and self._search.answers(fractions, positive_only=positive_only):
            found = self._search.quantiles()
        return found or super().quantiles(fractions, positive_only=positive_only)


def look_at(source: MicrographSource, kind: str, *, repair: bool, sample: bool) -> LookedAt:
    """Read a micrograph once, and keep what `cryoplug.core.normalization.fit_to` and a comparison will ask.

    Parameters
    ----------
    source
        The opened micrograph; closed together with what is returned.
    kind
        Of normalization: decides which quantiles are looked for.
    repair
        Whether hot pixels get the median of their neighbours before anything else is seen.
    sample
        Whether it will be compared with another image.
    """
    shape = source.shape
    known = sorted_finite(read_sampled_rows(source))
    finder = HotPixelFinder(source.read_rows, shape, limits_of_sorted(known) if repair else None)
    scan = ExtremesScan(shape)
    question = QUANTILES.get(kind)
    search = None
    if question is not None:
        search = QuantileSearch(known, shape, question.fractions, positive_only=question.positive_only)
    sampler = ImageSampler(shape) if sample else None
    step = whole_boxes(shape)
    for start in range(0, shape[0], step):
        rows = source.read_rows(start, min(start + step, shape[0]))
        finder.add(start, rows).repair(rows, start)
        scan.add(start, rows)
        if not scan.all_finite:
            continue  # It will be refused; only how many such pixels there are is still of interest.
        if search is not None:
            search.add(rows)
        if sampler is not None:
            sampler.add(start, rows)
    hot = finder.hot()
    seen = source
    if len(hot):
        seen = RepairedMicrograph(source, hot)
        seen.warnings = (*source.warnings, hot.remark)
    if not scan.all_finite:
        return LookedAt(seen, scan.extremes(), None, None)
    return LookedAt(seen, scan.extremes(), search, None if sampler is None else sampler.sample())
