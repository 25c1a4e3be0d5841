"""Pages: whatever a name holds stays text, numbers are strict JSON, and only cryoplug's own script runs."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cryoplug.reports.denoise_page import DenoiseReport, DenoiseRow, Featured, Live, denoise_page
from cryoplug.reports.featured import choose_featured
from cryoplug.reports.html import counted, json_in_page, shown_duration, shown_number, write_page

HOSTILE = (
    "<script>alert(1)</script>.mrc",
    "</script><img src=x onerror=alert(2)>.mrc",
    "a\"b'c`${1}.mrc",
    "new\nline\r.mrc",
    "line\u2028separator\u2029.mrc",
    "<!--.mrc",
    "]]>.mrc",
    "&lt;b&gt;.mrc",
    "{{ 7*7 }}{% raw %}.mrc",
    "javascript:alert(3).mrc",
    "not\udcffutf8.mrc",
    "tab\tnul\x00bell\x07.mrc",
    "\u202eright to left.mrc",
)


class Elements(HTMLParser):
    """Collects what a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self._inside: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else None
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside is None:
            self.text.append(data)


def elements(page: str) -> Elements:
    found = Elements()
    found.feed(page)
    return found


def report(rows: list[DenoiseRow], **others: object) -> DenoiseReport:
    counts = {status: sum(row.status == status for row in rows) for status in ("done", "skipped", "failed")}
    given = {
        "folder": Path("out"),
        "page": Path("out/report.html"),
        "rows": rows,
        "counts": counts,
        "problems": sum(row.is_problem and row.status != "failed" for row in rows),
        "settings": [("network", "unet")],
        "seconds": 90.0,
        **others,
    }
    return DenoiseReport(**given)  # type: ignore[arg-type]


def data_of(page: str) -> dict:
    return json.loads(elements(page).scripts[0])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_text_wherever_it_stands(name: str) -> None:
    row = DenoiseRow(
        name, "failed", f"{name}: mode 3 of {name} <b>is not</b> supported", picture=Path("previews") / name
    )
    page = denoise_page(report([row], folder=Path(name), page=Path(name) / "report.html", settings=[(name, name)]))
    found, plain = elements(page), elements(denoise_page(report([DenoiseRow("a.mrc", "failed", "no")])))
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in plain.tags]
    assert len(found.scripts) == 2
    assert not any(key.startswith("on") for _, attributes in found.tags for key in attributes)
    shown = data_of(page)["table"]["rows"][0][0]
    assert shown.isprintable()
    assert shown == name or not name.isprintable()


@pytest.mark.parametrize("name", HOSTILE)
def test_the_address_of_a_picture_is_a_relative_path_whatever_the_name(name: str) -> None:
    address = data_of(denoise_page(report([DenoiseRow("a", "done", picture=Path("previews") / name)])))["pictures"][0]
    assert address.startswith("./previews/")
    assert re.fullmatch(r"[A-Za-z0-9_.~/%-]+", address)


def test_only_the_script_of_the_package_may_run_and_nothing_is_asked_of_a_network() -> None:
    page = denoise_page(report([DenoiseRow("a.mrc", "done")]))
    found = elements(page)
    policy = next(item["content"] for tag, item in found.tags if tag == "meta" and "http-equiv" in item)
    digest = base64.b64encode(hashlib.sha256(found.scripts[1].encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:", page)
    assert not [item for tag, item in found.tags if tag in ("link", "script", "iframe") and (item.get("src") or "")]


def test_ice_may_be_removed_where_particles_are_written_and_nowhere_else() -> None:
    pages = {
        target: denoise_page(report([DenoiseRow("a.mrc", "done")], target=target)) for target in ("image", "particles")
    }
    assert "there should be noise alone" in pages["image"] and "noise and ice" not in pages["image"]
    assert "there should be noise and ice" in pages["particles"] and "noise alone" not in pages["particles"]


def test_data_are_ascii_without_anything_that_ends_a_script() -> None:
    text = json_in_page({"a": "</script>\u2028&\udcff", "b": [math.nan, math.inf, 1.5, None, True]})
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"a": "</script>\u2028&\udcff", "b": [None, None, 1.5, None, True]}


def test_a_page_is_written_whatever_bytes_its_names_have(tmp_path: Path) -> None:
    page = denoise_page(report([DenoiseRow("\udcff.mrc", "done")], folder=Path("\udcff")))
    write_page(tmp_path / "x.html", page)
    assert b"\xed\xb3\xbf" not in (tmp_path / "x.html").read_bytes()
    (tmp_path / "x.html").read_text(encoding="utf-8")


def test_the_numbers_of_a_row_and_the_words_of_the_page() -> None:
    rows = [
        DenoiseRow("a.mrc", "done", "", 2.0, 1.0, 3, 0.83, 4.5, Path("previews/a.jpg")),
        DenoiseRow("b.mrc", "failed", "b.mrc: no pixels"),
        DenoiseRow("c.mrc", "done", "clipped", None, None, None, None, 1.0),
    ]
    page = denoise_page(report(rows))
    table = data_of(page)["table"]
    assert table["rows"][0][2] == 0.75
    assert table["texts"][table["rows"][1][-1]] == "no pixels"
    assert (table["bad"], table["first"]) == ([1, 2], 0)
    words = " ".join(" ".join(elements(page).text).split())
    assert "2 micrographs denoised, 1 failed" in words
    assert "1 micrograph has a warning" in words
    assert all(column["hint"] for column in table["columns"])
    assert all(column["hint"] in words for column in table["columns"])


def test_pictures_are_found_from_where_the_page_lies() -> None:
    rows = [DenoiseRow("a.mrc", "done", picture=Path("previews/a.jpg"))]
    assert data_of(denoise_page(report(rows)))["base"] == ""
    assert data_of(denoise_page(report(rows, page=Path("night #1/live.html"))))["base"] == "./../out/"
    assert data_of(denoise_page(report(rows, page=Path("live.html"))))["base"] == "./out/"


def test_a_live_page_says_what_it_waits_for_and_reads_itself_anew() -> None:
    live = Live(10.0, ["x.mrc must stand still for 60 s"], [(-2.0, 3.0), (-1.0, 4.0)])
    page = denoise_page(report([DenoiseRow("a.mrc", "done")], live=live))
    assert "x.mrc must stand still for 60 s" in page
    assert data_of(page)["live"] == 10.0
    assert "polyline" in page
    assert data_of(denoise_page(report([DenoiseRow("a.mrc", "done")])))["live"] is None


def test_featured_micrographs_are_within_the_page() -> None:
    rows = [DenoiseRow("a.mrc", "done", picture=Path("previews/a.jpg"))]
    picture = Featured(0, b"JPEG", b"SPECTRUM", [(0.25, "10 \u00c5")], "<svg></svg>")
    page = denoise_page(report(rows, featured=[picture]))
    assert data_of(page)["featuredPictures"] == ["data:image/jpeg;base64," + base64.b64encode(b"JPEG").decode()]
    assert base64.b64encode(b"SPECTRUM").decode() in page
    assert "10 \u00c5</text>" in page


def test_featured_ones_hold_the_extremes_and_a_warning_and_are_spread() -> None:
    rows = [
        DenoiseRow(str(i), "done", "odd" if i == 70 else "", 1.0, 0.3 + 0.001 * ((i * 37) % 100), picture=Path("p"))
        for i in range(100)
    ]
    chosen = choose_featured(rows)
    assert len(chosen) == 8 == len(set(chosen))
    assert 70 in chosen
    removed = [row.removed or 0 for row in rows]
    assert {removed.index(min(removed)), removed.index(max(removed))} <= set(chosen)
    assert max(b - a for a, b in itertools.pairwise(chosen)) < 60
    assert choose_featured(rows[:3]) == [0, 1, 2]
    assert choose_featured([DenoiseRow("a", "failed")]) == []


def test_twenty_thousand_rows_are_a_few_megabytes_in_a_few_seconds() -> None:
    import time

    rows = [
        DenoiseRow(f"Movies/{i:06d}.mrc", "done", "the same remark", 9.9, 1.1, 0, 0.83, 1.0, Path(f"previews/{i}.jpg"))
        for i in range(20_000)
    ]
    started = time.process_time()
    page = denoise_page(report(rows))
    assert time.process_time() - started < 10
    assert len(page) < 4e6
    assert page.count("the same remark") == 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (41.4, "41 s"), (725, "12 min 5 s"), (12_000, "3 h 20 min")]
)
def test_times_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert shown_duration(seconds) == text


def test_numbers_and_nouns() -> None:
    assert [counted(n, "micrograph") for n in (0, 1, 1200)] == ["0 micrographs", "1 micrograph", "1,200 micrographs"]
    assert counted(2, "patch", "patches") == "2 patches"
    assert [shown_number(x) for x in (None, math.nan, True, 12000, 0.123456)] == ["-", "-", "yes", "12,000", "0.1235"]
