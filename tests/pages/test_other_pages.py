"""Pages of evaluations, training runs and inspections in a browser: not a word on the console, nothing beyond the width."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a page of each kind."""
    source = Path(__file__).parents[1] / "reports" / "made_pages.py"
    spec = importlib.util.spec_from_file_location("made_pages", source)
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    folder = tmp_path_factory.mktemp("pages")
    for name, text in made.made_pages().items():
        (folder / f"{name}.html").write_text(text)
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["evaluation", "training", "inspection"])
def test_a_page_fits_its_charts_and_pictures_are_drawn(browser: Any, pages: dict[str, Path], kind: str) -> None:
    browser.get(pages[kind].as_uri())
    width = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    pictures = browser.find_elements("tag name", "img")
    assert pictures
    browser.execute_script("document.querySelectorAll('img').forEach((item) => { item.loading = 'eager'; })")
    assert all(
        browser.execute_script("return arguments[0].decode().then(() => arguments[0].naturalWidth)", item) > 0
        for item in pictures
    )
    charts = browser.find_elements("css selector", "svg.chart")
    assert charts
    assert all(chart.size["width"] > 200 and chart.size["height"] > 120 for chart in charts)


def test_names_of_methods_are_not_broken_letter_by_letter(browser: Any, pages: dict[str, Path]) -> None:
    browser.get(pages["evaluation"].as_uri())
    cells = browser.find_elements("css selector", ".plain tbody td:first-child")
    assert {cell.text for cell in cells} == {"denoised", "identity", "affine", "gaussian", "wiener"}
    assert all(cell.size["height"] < 60 for cell in cells)


def test_the_tables_of_an_inspection_search(browser: Any, pages: dict[str, Path]) -> None:
    browser.get(pages["inspection"].as_uri())
    browser.execute_script("sessionStorage.clear()")
    browser.get(pages["inspection"].as_uri())
    box = browser.find_element("css selector", "[data-table=paths]")
    box.find_element("css selector", "input[type=search]").send_keys("error")
    assert [item.text for item in box.find_elements("css selector", "td.name")] == ["<b>\"x'.mrc"]


def test_a_folder_of_all_files_is_said_once_and_a_chosen_row_is_spelled_out(
    browser: Any, pages: dict[str, Path]
) -> None:
    browser.get(pages["nested"].as_uri())
    browser.execute_script("sessionStorage.clear()")
    browser.get(pages["nested"].as_uri())
    width = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    box = browser.find_element("css selector", "[data-table=paths]")
    names = [item.text for item in box.find_elements("css selector", "td.name")]
    assert names == [f"grid1/{'long_' * 30}name.mrc", "grid2/<b>\"x'.mrc"]
    folder = "/data/facility/2026-11-29/session_of_a_long_night/MotionCorr/job002/"
    assert box.find_element("css selector", ".folder").text == f"All are in {folder}."
    search = box.find_element("css selector", "input[type=search]")
    search.send_keys("job002 grid2")
    box.find_element("css selector", "tr[data-row] td.name").click()
    spelled = box.find_element("css selector", ".whole").text
    assert spelled == f"{folder}grid2/<b>\"x'.mrc: cella: {'very ' * 40}odd"


def test_a_name_that_is_too_long_shows_its_end(wide: Any, pages: dict[str, Path]) -> None:
    wide.get(pages["nested"].as_uri())
    wide.execute_script("sessionStorage.clear()")
    wide.get(pages["nested"].as_uri())
    end = wide.execute_script(
        "const cell = document.querySelector('td.name .cell'), text = cell.firstChild.firstChild, range = document.createRange();"
        "range.setStart(text, text.length - 8); range.setEnd(text, text.length);"
        "const [part, box] = [range, cell].map((item) => item.getBoundingClientRect());"
        "return [cell.scrollWidth > cell.clientWidth, part.left - box.left, box.right - part.right, part.width]"
    )
    assert end[0] and end[1] > 50 and -1 <= end[2] < 3 and end[3] > 30
