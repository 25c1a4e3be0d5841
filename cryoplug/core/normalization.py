"""How grey values become what a network sees: a record that is fitted, applied, inverted and stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from cryoplug.core.micrograph import BAND_PIXELS, ImageF32, MicrographSource, row_bands
from cryoplug.core.quantiles import stream_quantiles
from cryoplug.core.statistics import PixelExtremes, PixelStatistics, RunningMoments, scan_pixels
from cryoplug.errors import FormatError, PixelError, UsageError

NormalizationKind = Literal["percentile", "zscore", "robust", "none"]
KINDS: tuple[str, ...] = get_args(NormalizationKind)

PERCENTILE_FRACTION = 0.95
"""The founding recipe divides by this quantile of the positive pixels."""
WINSOR_FRACTIONS = (0.001, 0.999)
"""Pixels beyond these quantiles do not pull mean and deviation of `zscore`."""
ZSCORE_LIMIT = 20.0
"""`zscore` clips to this many standard deviations: a real micrograph had a hot pixel of 45804 at sigma 610."""

ROBUST_FRACTIONS = (0.1587, 0.5, 0.8413)
"""The middle one is the centre of `robust`; half the distance of the others is its scale: one deviation of plain noise."""
ROBUST_LIMIT = 6e4
"""`robust` clips to this many deviations, so that no value becomes infinite, even in a store of float16. A network that
wants a smaller range clips by itself."""


@dataclass(frozen=True)
class QuantileQuestion:
    """The quantiles that a normalization needs."""

    fractions: tuple[float, ...]
    """Each in [0, 1]."""
    positive_only: bool = False
    """Whether only pixels above zero count."""


QUANTILES = {
    "percentile": QuantileQuestion((PERCENTILE_FRACTION,), positive_only=True),
    "zscore": QuantileQuestion(WINSOR_FRACTIONS),
    "robust": QuantileQuestion(ROBUST_FRACTIONS),
}
"""The quantiles that `fit_to` needs first, so that the first reading of the pixels can already look for them."""


@dataclass(frozen=True)
class Normalization:
    """``clip((pixel - offset) / scale, clip_low, clip_high)``."""

    kind: NormalizationKind
    """``percentile``: the founding recipe. ``zscore``: zero mean, unit deviation. ``robust``: the same by quantiles.
    ``none``: pixels as they are."""
    offset: float = 0.0
    """Subtracted first, in grey values of the micrograph."""
    scale: float = 1.0
    """Divisor after that, in grey values; positive."""
    clip_low: float | None = None
    """Lowest value after scaling; None sets no limit."""
    clip_high: float | None = None
    """Highest value after scaling; None sets no limit."""

    def __post_init__(self) -> None:
        problems = []
        if self.kind not in KINDS:
            problems.append(f"kind is {self.kind!r}; allowed: {', '.join(KINDS)}")
        if not math.isfinite(self.offset):
            problems.append(f"offset is {self.offset}; allowed: a finite number")
        if not (math.isfinite(self.scale) and self.scale > 0):
            problems.append(f"scale is {self.scale}; allowed: a finite number above 0")
        for name, limit in (("clip_low", self.clip_low), ("clip_high", self.clip_high)):
            if limit is not None and not math.isfinite(limit):
                problems.append(f"{name} is {limit}; allowed: a finite number or nothing")
        if self.clip_low is not None and self.clip_high is not None and not self.clip_low < self.clip_high:
            problems.append(f"clip_low is {self.clip_low} and clip_high {self.clip_high}; allowed: low below high")
        if problems:
            raise UsageError("normalization: " + "; ".join(problems))

    def apply(self, pixels: np.ndarray) -> ImageF32:
        """Normalise grey values: the result is what the network sees.

        Parameters
        ----------
        pixels
            Grey values, any shape; not changed.

        Returns
        -------
        ImageF32
            New array of the same shape.
        """
        result = np.array(pixels, dtype=np.float32, order="C")
        self.apply_to(result)
        return result

    def apply_to(self, pixels: ImageF32) -> None:
        """Do what `apply` does, in place, to a C-contiguous array."""
        flat = pixels.reshape(-1)
        for start in range(0, flat.size, BAND_PIXELS):
            self._apply_to(flat[start : start + BAND_PIXELS])

    def _apply_to(self, pixels: ImageF32) -> None:
        # A hot pixel over a tiny scale may overflow to infinity; the clip that follows brings it back.
        with np.errstate(over="ignore"):
            if self.offset != 0.0:
                pixels -= np.float32(self.offset)
            if self.scale != 1.0:
                pixels /= np.float32(self.scale)
        if self.clip_low is not None or self.clip_high is not None:
            np.clip(pixels, self.clip_low, self.clip_high, out=pixels)

    def invert(self, pixels: np.ndarray) -> ImageF32:
        """Bring a network's output back to the micrograph's grey values; clipped pixels stay clipped.

        Parameters
        ----------
        pixels
            Normalised values, any shape; not changed.

        Returns
        -------
        ImageF32
            ``pixels * scale + offset``, new array.
        """
        result = np.array(pixels, dtype=np.float32, order="C")
        if self.scale != 1.0:
            result *= np.float32(self.scale)
        if self.offset != 0.0:
            result += np.float32(self.offset)
        return result

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types; `from_dict` reads them back without loss."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Normalization:
        """Read what `to_dict` wrote.

        Raises
        ------
        FormatError
            A field is missing, unknown or of the wrong type, or its value is not allowed.
        """
        if not isinstance(record, dict):
            raise FormatError(f"normalization is {record!r}; allowed: an object with kind, offset, scale and clips")
        unknown = sorted(set(record) - set(cls.__dataclass_fields__))
        if unknown or "kind" not in record:
            found = f"unknown fields {', '.join(map(str, unknown))}" if unknown else "no field kind"
            raise FormatError(f"normalization: {found}; allowed: {', '.join(cls.__dataclass_fields__)}")
        numbers: dict[str, float | None] = {}
        for name, value in record.items():
            if name == "kind":
                continue
            number_like = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number_like and not (value is None and name.startswith("clip")):
                raise FormatError(f"normalization: {name} is {value!r}; allowed: a number")
            numbers[name] = None if value is None else float(value)
        try:
            return cls(record["kind"], **numbers)  # type: ignore[arg-type]
        except (UsageError, TypeError) as error:
            raise FormatError(str(error)) from error


class Measured(Protocol):
    """Pixels that can be measured, wherever they are: in a file, in memory or on a GPU."""

    @property
    def path(self) -> Path:
        """The file, named in messages."""

    def extremes(self) -> PixelExtremes:
        """Find the extremes: look at all pixels once, unless they are known."""

    def quantiles(self, fractions: Sequence[float], *, positive_only: bool = False) -> tuple[float, ...]:
        """Give exact quantiles of finite pixels; see `cryoplug.core.quantiles.stream_quantiles`."""

    def clipped_moments(self, low: float, high: float) -> tuple[float, float]:
        """Give mean and standard deviation (division by n) of the pixels clipped to a range."""

    def statistics(self) -> PixelStatistics:
        """Measure mean and deviation: look at all pixels once, unless they are known."""


class MeasuredSource:
    """A micrograph that is measured in bounded memory, band by band.

    Parameters
    ----------
    source
        The opened micrograph; each question reads it once.
    """

    def __init__(self, source: MicrographSource) -> None:
        self._source = source
        self._statistics: PixelStatistics | None = None
        self.path = source.path

    def extremes(self) -> PixelExtremes:
        """Find the extremes in one reading."""
        return self.statistics()

    def statistics(self) -> PixelStatistics:
        """Measure mean and deviation in one reading."""
        if self._statistics is None:
            self._statistics = scan_pixels(self._source)
        return self._statistics

    def quantiles(self, fractions: Sequence[float], *, positive_only: bool = False) -> tuple[float, ...]:
        """Give exact quantiles of finite pixels."""
        return stream_quantiles(self._source, fractions, positive_only=positive_only)

    def clipped_moments(self, low: float, high: float) -> tuple[float, float]:
        """Give mean and standard deviation of the pixels clipped to a range."""
        moments = RunningMoments()
        for _, rows in row_bands(self._source):
            moments.add(np.clip(rows, low, high, out=rows))
        return moments.mean, moments.std


def fit_normalization(source: MicrographSource, kind: str) -> Normalization:
    """Measure a micrograph and say how to normalise it, as `fit_to` does."""
    return fit_to(MeasuredSource(source), kind)


def fit_to(measured: Measured, kind: str) -> Normalization:
    """Measure pixels and say how to normalise them.

    ``percentile`` divides by the 95th percentile of the positive pixels and clips to [0, 1], as the founding program
    does. ``zscore`` subtracts the mean and divides by the standard deviation, and clips to [-20, 20]. For both, pixels
    are first clipped to their 0.1 % and 99.9 % quantiles, so that a hot pixel cannot ruin them. ``robust`` subtracts the
    median and divides by half the distance between the quantiles 0.1587 and 0.8413. It clips nothing that a detector can
    count. If a tenth of the micrograph is gold or thick ice, however dark, the median moves by 0.15 deviations of the rest,
    and the scale by a quarter. ``none`` changes nothing.

    Parameters
    ----------
    measured
        The pixels.
    kind
        One of `KINDS`.

    Raises
    ------
    PixelError
        Pixels are NaN or infinite, all equal, or (percentile) none is positive.
    """
    if kind not in KINDS:
        raise UsageError(f"normalization {kind!r}; allowed: {', '.join(KINDS)}")
    extremes = measured.extremes()
    check_usable(measured, extremes)
    if kind == "none":
        return Normalization("none")
    if kind == "percentile":
        if extremes.positive_count == 0:
            raise PixelError(
                f"{measured.path}: no pixel is above zero (maximum {extremes.maximum:g}), but percentile divides by "
                "the 95th percentile of the positive pixels; use --normalize zscore"
            )
        (scale,) = _quantiles(measured, kind)
        return Normalization("percentile", scale=scale, clip_low=0.0, clip_high=1.0)
    if kind == "robust":
        centre, scale = _by_quantiles(measured)
        return Normalization("robust", centre, scale, -ROBUST_LIMIT, ROBUST_LIMIT)
    mean, std = _winsorized(measured)
    return Normalization("zscore", mean, std, -ZSCORE_LIMIT, ZSCORE_LIMIT)


def _quantiles(measured: Measured, kind: str) -> tuple[float, ...]:
    question = QUANTILES[kind]
    return measured.quantiles(question.fractions, positive_only=question.positive_only)


def _by_quantiles(measured: Measured) -> tuple[float, float]:
    """Give centre and scale of `robust`."""
    low, centre, high = _quantiles(measured, "robust")
    if high > low:
        return centre, (high - low) / 2
    # More than two thirds of the pixels are equal: only the rest tells a scale.
    return _winsorized(measured)


def _winsorized(measured: Measured) -> tuple[float, float]:
    """Give mean and deviation with the farthest 0.2 % of the pixels clipped."""
    low, high = _quantiles(measured, "zscore")
    mean, std = measured.clipped_moments(low, high)
    if not std > 0:
        # More than 99.8 % of the pixels are equal: only the rest carries anything, so it must count.
        statistics = measured.statistics()
        return statistics.mean, statistics.std
    return mean, std


def check_usable(source: MicrographSource | Measured, extremes: PixelExtremes) -> None:
    """Raise `PixelError` when the pixels are not finite or all equal."""
    if extremes.nonfinite_count:
        raise PixelError(
            f"{source.path}: {extremes.nonfinite_count} of {extremes.count} pixels are NaN or infinite, the first "
            f"at (y, x) = {extremes.first_nonfinite}; only finite pixels are allowed; repair or re-export it"
        )
    if extremes.is_constant:
        raise PixelError(
            f"{source.path}: all {extremes.count} pixels are {extremes.minimum:g}; a micrograph needs contrast; "
            "leave it out or re-export it"
        )


def clipped_fraction(source: MicrographSource, normalization: Normalization) -> float:
    """Measure which part of the pixels a normalization clips.

    Returns
    -------
    float
        In [0, 1]. The founding recipe clips 5 % of the positive pixels at the top, and everything below zero.
    """
    low = -math.inf if normalization.clip_low is None else normalization.clip_low
    high = math.inf if normalization.clip_high is None else normalization.clip_high
    if low == -math.inf and high == math.inf:
        return 0.0
    bare = Normalization(normalization.kind, normalization.offset, normalization.scale)
    clipped = 0
    for _, rows in row_bands(source):
        scaled = bare.apply(rows)
        clipped += int(np.count_nonzero((scaled < low) | (scaled > high)))
    return clipped / (source.shape[0] * source.shape[1])
