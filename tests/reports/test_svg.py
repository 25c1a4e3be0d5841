"""Charts: values lie where the axes say, gaps stay gaps, and labels stay text."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from cryoplug.reports.svg import HEIGHT, WIDTH, Axis, Series, line_chart, resolutions


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{svg}</div>")


def points(svg: str) -> list[list[tuple[float, float]]]:
    return [
        [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]  # type: ignore[misc]
        for line in parsed(svg).iter("polyline")
    ]


def test_a_straight_line_is_straight_and_fills_the_frame() -> None:
    (line,) = points(line_chart([Series("a", [0, 1, 2], [5, 6, 7])], Axis("x"), Axis("y", limits=(5, 7)), title="t"))
    (x0, y0), (x1, y1), (x2, y2) = line
    assert (x1, y1) == (pytest.approx((x0 + x2) / 2, abs=0.1), pytest.approx((y0 + y2) / 2, abs=0.1))
    assert (x2, y0 > y2) == (WIDTH - 12, True)


def test_equal_factors_are_equal_steps_on_a_logarithmic_axis() -> None:
    (line,) = points(
        line_chart([Series("a", [0, 1, 2], [1, 10, 100])], Axis("x"), Axis("y", logarithmic=True), title="t")
    )
    heights = [y for _, y in line]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.11)


def test_what_has_no_place_leaves_a_gap() -> None:
    values = [1, 2, np.nan, 3, 4, 0, 5, 6]
    svg = line_chart([Series("a", range(8), values)], Axis("x"), Axis("y", logarithmic=True), title="t")
    assert [len(line) for line in points(svg)] == [2, 2, 2]


@pytest.mark.parametrize("values", [[], [np.nan], [-1.0, 0.0]])
def test_without_values_the_chart_says_so(values: list[float]) -> None:
    text = line_chart([Series("a", range(len(values)), values)], Axis("x"), Axis("y", logarithmic=True), title="<t>")
    assert text == '<p class="none">&lt;t&gt;: no values.</p>'


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-12, 4e8])
def test_a_constant_and_a_single_point_are_drawn_within_the_frame(value: float) -> None:
    for count in (1, 5):
        svg = line_chart([Series("a", range(count), [value] * count, points=True)], Axis("x"), Axis("y"), title="t")
        dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in parsed(svg).iter("circle")]
        assert len(dots) == count
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in dots)


def test_labels_are_text() -> None:
    series = [Series("<script>", [0, 1], [1, 2]), Series('"&', [0, 1], [2, 3])]
    found = parsed(line_chart(series, Axis("<x>"), Axis("&y"), title='"><b>'))
    assert not list(found.iter("script"))
    assert [item.text or item[0].tail for item in found.iter("li")] == ["<script>", '"&']


def test_long_curves_are_thinned() -> None:
    (line,) = points(line_chart([Series("a", range(100_000), np.arange(100_000))], Axis("x"), Axis("y"), title="t"))
    assert len(line) < 500


@pytest.mark.parametrize("highest", [0.02, 0.17, 0.33, 0.6, 1.2])
def test_resolutions_are_round_lie_apart_and_within(highest: float) -> None:
    chosen = resolutions(highest, apart=0.15)
    frequencies = [1 / size for size in chosen]
    assert frequencies == sorted(frequencies)
    assert all(b - a >= 0.15 * highest for a, b in itertools.pairwise(frequencies))
    assert frequencies[-1] <= highest * 1.001


def test_a_resolution_axis_is_written_in_angstrom() -> None:
    svg = line_chart([Series("a", [0.0, 0.25], [1, 2])], Axis("x", resolution=True), Axis("y"), title="t")
    assert re.search(r">10<", svg)
    assert re.search(r">4<", svg)
