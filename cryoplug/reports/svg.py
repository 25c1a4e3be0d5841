"""Charts as SVG text: lines and points over two axes; the page's style sheet colours them, also on dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 440, 270
"""Size of a chart in its own units; letters are 12 units high, so that they can be read on a phone."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 12, 46
_MOST_POINTS = 400


@dataclass(frozen=True, eq=False)
class Series:
    """A curve."""

    label: str
    """Name of the curve in the legend."""
    x: npt.ArrayLike
    """Places on the lower axis."""
    y: npt.ArrayLike
    """Values; one that is not finite, or not above 0 on a logarithmic axis, leaves a gap."""
    style: int = 0
    """Number of the colour, 0 to 5."""
    dashed: bool = False
    """Whether to draw a dashed line, for comparison."""
    points: bool = False
    """Whether to mark each value, if there are only a few."""


@dataclass(frozen=True)
class Axis:
    """Settings of an axis."""

    label: str
    """Quantity and unit."""
    logarithmic: bool = False
    """Whether it is logarithmic, with powers of ten."""
    limits: tuple[float, float] | None = None
    """Lowest and highest value; None takes those of the data."""
    resolution: bool = False
    """Whether values are 1/A and labels A: 0.1 is written as 10."""
    whole: bool = False
    """Whether only whole numbers make sense, as for epochs."""


def line_chart(series: Sequence[Series], x: Axis, y: Axis, *, title: str) -> str:
    """Draw curves.

    Parameters
    ----------
    series
        The curves; without any value, the chart says so.
    x, y
        The axes.
    title
        Text for screen readers.

    Returns
    -------
    str
        An SVG element; labels are escaped.
    """
    xs = [np.asarray(item.x, np.float64) for item in series]
    ys = [np.asarray(item.y, np.float64) for item in series]
    if y.logarithmic:
        ys = [np.where(values > 0, values, np.nan) for values in ys]
    known = [np.isfinite(a) & np.isfinite(b) for a, b in zip(xs, ys, strict=True)]
    if not any(mask.any() for mask in known):
        return f'<p class="none">{escape(title)}: no values.</p>'
    x_range = x.limits or _range(np.concatenate([a[mask] for a, mask in zip(xs, known, strict=True)]), margin=0.0)
    pooled = np.concatenate([b[mask] for b, mask in zip(ys, known, strict=True)])
    y_range = y.limits or _range(np.log10(pooled) if y.logarithmic else pooled, margin=0.06)
    if y.logarithmic and y.limits:
        y_range = (math.log10(y.limits[0]), math.log10(y.limits[1]))

    def place_x(value: float) -> float:
        return _LEFT + (value - x_range[0]) / (x_range[1] - x_range[0]) * (WIDTH - _LEFT - _RIGHT)

    def place_y(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - y_range[0]) / (y_range[1] - y_range[0]) * (HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    bottom = HEIGHT - _BOTTOM
    for value, label in _ticks_y(y_range, logarithmic=y.logarithmic):
        height = place_y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{label}</text>')
    for value, label in _ticks_x(x_range, x):
        across = place_x(value)
        parts.append(f'<line class="tick" x1="{across:.1f}" x2="{across:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text x="{across:.1f}" y="{bottom + 17}" text-anchor="middle">{label}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    middle_x, middle_y = (_LEFT + WIDTH - _RIGHT) / 2, (_TOP + bottom) / 2
    parts.append(f'<text class="label" x="{middle_x}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(
        f'<text class="label" transform="translate(13 {middle_y}) rotate(-90)" text-anchor="middle">{escape(y.label)}</text>'
    )
    for item, a, b, mask in zip(series, xs, ys, known, strict=True):
        b = np.log10(np.where(mask, b, 1.0)) if y.logarithmic else b
        shown = mask & (a >= x_range[0] - 1e-12) & (a <= x_range[1] + 1e-12)
        kind = f"line s{item.style}{' dashed' if item.dashed else ''}"
        for run in _runs(shown):
            at = [(place_x(a[i]), min(max(place_y(b[i]), _TOP), bottom)) for i in _thinned(run)]
            path = " ".join(f"{across:.1f},{height:.1f}" for across, height in at)
            if len(at) > 1:
                parts.append(f'<polyline class="{kind}" points="{path}"/>')
            if item.points or mask.sum() == 1:
                parts += [f'<circle class="dot s{item.style}" cx="{u:.1f}" cy="{v:.1f}" r="3"/>' for u, v in at]
    return "".join(parts) + "</svg>" + legend(series)


def legend(series: Sequence[Series]) -> str:
    """Write the legend of the colours; nothing for a single curve."""
    if len(series) < 2:
        return ""
    items = "".join(
        f'<li><i class="key s{item.style}{" dashed" if item.dashed else ""}"></i>{escape(item.label)}</li>'
        for item in series
    )
    return f'<ul class="legend">{items}</ul>'


def _range(values: npt.NDArray[np.float64], *, margin: float) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if high <= low:
        half = abs(low) * 0.1 or 0.5
        return low - half, high + half
    extra = margin * (high - low)
    return low - extra, high + extra


def _ticks_y(limits: tuple[float, float], *, logarithmic: bool) -> list[tuple[float, str]]:
    if not logarithmic:
        return [(value, _plain(value)) for value in _round_values(*limits)]
    first, last = math.ceil(limits[0] - 1e-9), math.floor(limits[1] + 1e-9)
    step = max(1, math.ceil((last - first + 1) / 6))
    whole = [(float(power), _plain(10.0**power)) for power in range(first, last + 1, step)]
    if len(whole) > 2:
        return whole
    values = [factor * 10.0**power for power in range(first - 1, last + 1) for factor in (1, 2, 3, 5, 7)]
    inside = [value for value in values if limits[0] <= math.log10(value) <= limits[1]]
    if len(inside) > 1:
        return [(math.log10(value), _plain(value)) for value in inside]
    # Less than a factor of two: round steps say more than round factors.
    return [(math.log10(value), _plain(value)) for value in _round_values(10 ** limits[0], 10 ** limits[1])]


def _ticks_x(limits: tuple[float, float], axis: Axis) -> list[tuple[float, str]]:
    if not axis.resolution:
        values = _round_values(*limits)
        return [(value, _plain(value)) for value in values if not axis.whole or abs(value - round(value)) < 1e-9]
    return [(1 / size, f"{size:g}") for size in resolutions(limits[1], apart=0.11) if 1 / size >= limits[0]]


def resolutions(highest: float, *, apart: float) -> list[float]:
    """Choose round resolutions in A whose frequencies lie well apart below `highest` (1/A), coarse ones first.

    Parameters
    ----------
    highest
        Frequency at the end of the axis, 1/A.
    apart
        Least distance of two frequencies, as a part of `highest`.
    """
    chosen: list[float] = []
    for size in (200, 100, 50, 40, 30, 20, 15, 12, 10, 8, 7, 6, 5, 4, 3.5, 3, 2.5, 2, 1.5, 1.2, 1):
        last = 1 / chosen[-1] if chosen else 0.0
        if 1 / size <= highest * (1 + 1e-9) and 1 / size - last >= apart * highest:
            chosen.append(size)
    return chosen


def _round_values(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [step * place for place in range(first, math.floor(high / step + 1e-9) + 1)]


def _plain(value: float) -> str:
    value = 0.0 if abs(value) < 1e-12 else value
    text = f"{value:.4g}"
    if "e" not in text:
        return text
    mantissa, power = text.split("e")
    return f"{mantissa}e{int(power)}" if mantissa != "1" else f"1e{int(power)}"


def _runs(mask: npt.NDArray[np.bool_]) -> list[range]:
    """Give the stretches without a gap."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [range(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _thinned(run: range) -> list[int]:
    step = max(1, math.ceil(len(run) / _MOST_POINTS))
    return sorted({*run[::step], run[-1]})
