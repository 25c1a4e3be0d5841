"""The page of a denoise run in a browser: divider, table and search by real events, 20,000 rows, hostile names."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryoplug.core.micrograph import ArrayMicrograph
from cryoplug.core.thumbnail import BeforeAfter, SmallImage
from cryoplug.outputs.pictures import jpeg
from cryoplug.outputs.previews import draw_preview, preview_of
from cryoplug.reports.denoise_page import DenoiseReport, DenoiseRow, Featured, Live, denoise_page
from cryoplug.reports.featured import feature
from cryoplug.reports.html import write_page

HOSTILE = (
    "<script>document.title='broken'</script>.mrc",
    "</script><img src=x onerror=\"document.title='broken'\">.mrc",
    "a\"b'c.mrc",
    "new\nline.mrc",
    "line\u2028separator.mrc",
)
OPENED_WITHIN_S = 2.0


def picture(seed: int) -> bytes:
    """Draw a preview whose left panel is dark and whose middle one is bright, so that pixels tell the panels apart."""
    rng = np.random.default_rng(seed)
    raw, denoised = (rng.normal(level, 0.3, (128, 128)).astype(np.float32) for level in (-1.0, 1.0))
    both = BeforeAfter(SmallImage(raw, raw.shape), SmallImage(denoised, denoised.shape))
    return jpeg(draw_preview(preview_of(both, 4.0)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small page, a large one and a live one beside their pictures."""
    folder = tmp_path_factory.mktemp("out")
    (folder / "previews").mkdir()
    for index in range(4):
        (folder / "previews" / f"{index}.jpg").write_bytes(picture(index))
    rows = [
        DenoiseRow(
            f"mic{index}.mrc",
            "done",
            "clipped 3 %" if index == 2 else "",
            2.0,
            0.5 + index / 10,
            1,
            0.83,
            1.5,
            Path(f"previews/{index}.jpg"),
        )
        for index in range(4)
    ]
    rows += [DenoiseRow(name, "failed", f"{name}: mode 3 is not supported") for name in HOSTILE]
    image = np.random.default_rng(1).normal(size=(256, 256)).astype(np.float32)
    source = ArrayMicrograph(image, Path("a.mrc"))
    featured = [feature(0, picture(0), source, source, pixel_size_angstrom=0.83, written_angstrom=0.83)]
    many = rows + [
        DenoiseRow(f"Movies/{index:06d}.mrc", "failed" if index % 1000 == 7 else "done", "", 2.0, 0.5, 0, 0.83, 1.0)
        for index in range(20_000 - len(rows))
    ]
    write(folder, "report.html", rows, featured)
    write(folder, "many.html", many, featured)
    write(folder, "live.html", rows, [], Live(1.0, ["x.mrc must stand still for 60 s"], [(-2.0, 3.0), (-1.0, 4.0)]))
    return folder


def write(folder: Path, name: str, rows: list[DenoiseRow], featured: list[Featured], live: Live | None = None) -> None:
    counts = {status: sum(row.status == status for row in rows) for status in ("done", "skipped", "failed")}
    page = folder / name
    report = DenoiseReport(folder, page, rows, counts, 1, [("network", "unet")], 60.0, featured, live)
    write_page(page, denoise_page(report))


def opened(browser: Any, page: Path) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(page.as_uri())
    browser.execute_script("sessionStorage.clear()")
    browser.get(page.as_uri())
    WebDriverWait(browser, 10).until(lambda _: drawn(browser))
    return browser


def drawn(browser: Any) -> bool:
    """Tell whether a picture is on the canvas: before, it has its own size, and nothing on it."""
    return bool(browser.execute_script("return document.querySelector('.divider canvas').width === 128"))


def rows_of(browser: Any) -> list[str]:
    return [item.text for item in browser.find_elements("css selector", "tr[data-row] td.name .cell")]


def at(browser: Any) -> int:
    return int(browser.find_element("css selector", ".divider").get_attribute("aria-valuenow"))


def test_the_page_fits_the_width_and_its_picture_is_there(browser: Any, folder: Path) -> None:
    opened(browser, folder / "report.html")
    width = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    assert browser.find_element("css selector", ".shown-name").text == "mic0.mrc"
    ink, paper = browser.execute_script(
        "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    )
    dark = browser.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches")
    brightness = [sum(map(int, text[4:-1].split(","))) for text in (ink, paper)]
    assert (brightness[0] > brightness[1]) == dark
    save(browser, folder)


def test_the_divider_follows_the_mouse(browser: Any, folder: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    opened(browser, folder / "report.html")
    box = browser.find_element("css selector", ".divider")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
    width = box.size["width"]
    assert at(browser) == 50
    ActionChains(browser).move_to_element(box).click_and_hold().move_by_offset(int(0.3 * width), 0).release().perform()
    assert at(browser) == pytest.approx(80, abs=2)
    ActionChains(browser).move_to_element(box).perform()  # the button is up: it stays
    assert at(browser) == pytest.approx(80, abs=2)
    handle = browser.find_element("css selector", ".handle").rect
    assert handle["x"] + handle["width"] / 2 - box.rect["x"] == pytest.approx(0.8 * width, abs=0.03 * width)


def test_the_divider_follows_a_finger(browser: Any, folder: Path) -> None:
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.interaction import POINTER_TOUCH
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    opened(browser, folder / "report.html")
    box = browser.find_element("css selector", ".divider")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
    place = browser.execute_script(
        "const r = arguments[0].getBoundingClientRect(); return [r.x, r.y, r.width, r.height]", box
    )
    builder = ActionBuilder(browser, mouse=PointerInput(POINTER_TOUCH, "finger"))
    finger = builder.pointer_action
    finger.move_to_location(int(place[0] + place[2] / 2), int(place[1] + place[3] / 2)).pointer_down()
    finger.move_to_location(int(place[0] + 0.4 * place[2]), int(place[1] + place[3] / 2))
    finger.move_to_location(int(place[0] + 0.25 * place[2]), int(place[1] + place[3] / 2)).pointer_up()
    builder.perform()
    assert at(browser) == pytest.approx(25, abs=3)


def test_the_divider_follows_the_arrow_keys(browser: Any, folder: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, folder / "report.html")
    box = browser.find_element("css selector", ".divider")
    for keys, place in (
        (Keys.ARROW_LEFT * 5, 40),
        (Keys.ARROW_RIGHT, 42),
        (Keys.HOME, 0),
        (Keys.END, 100),
        (Keys.PAGE_DOWN, 90),
    ):
        box.send_keys(keys)
        assert at(browser) == place
    assert "raw 90 %" in box.get_attribute("aria-valuetext")


def test_the_picture_is_raw_on_the_left_and_denoised_on_the_right(wide: Any, folder: Path) -> None:
    opened(wide, folder / "report.html")
    # Embedded pictures are of this page, so that its pixels may be read; from a copy, which is made for reading.
    read = (
        "const c = document.querySelector('.divider canvas'), d = document.createElement('canvas');"
        "d.width = c.width; d.height = c.height; const k = d.getContext('2d', {willReadFrequently: true});"
        "k.drawImage(c, 0, 0); return k.getImageData(arguments[0], 60, 1, 1).data[0]"
    )
    left, right = (wide.execute_script(read, x) for x in (20, 108))
    assert left < 100 < 156 < right
    wide.find_element("css selector", "[data-mode=removed]").click()
    assert 60 < wide.execute_script(read, 20) < 196
    assert not wide.find_element("css selector", ".handle").is_displayed()


def test_search_sort_and_problems_by_real_keys_and_clicks(browser: Any, folder: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, folder / "report.html")
    search = browser.find_element("css selector", "input[type=search]")
    search.send_keys("MIC2 clipped")
    assert rows_of(browser) == ["mic2.mrc"]
    assert browser.find_element("css selector", ".count").text == "1 of 9 rows"
    search.send_keys(Keys.CONTROL + "a", Keys.BACKSPACE)
    assert len(rows_of(browser)) == 9
    browser.find_element("css selector", ".problems").click()
    assert len(rows_of(browser)) == 6
    browser.find_element("css selector", ".problems").click()
    heading = browser.find_element("xpath", "//th/button[text()='removed']")
    heading.click()
    assert [name for name in rows_of(browser) if name.startswith("mic")] == [
        "mic3.mrc",
        "mic2.mrc",
        "mic1.mrc",
        "mic0.mrc",
    ]
    heading.click()
    assert rows_of(browser)[0] == "mic0.mrc"
    assert heading.find_element("xpath", "..").get_attribute("aria-sort") == "descending"


def test_rows_are_chosen_by_click_and_by_key_and_the_picture_follows(browser: Any, folder: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, folder / "report.html")
    name = browser.find_element("css selector", ".shown-name")
    browser.find_elements("css selector", "tr[data-row]")[2].click()
    assert name.text == "mic2.mrc"
    scroll = browser.find_element("css selector", ".scroll.tall")
    scroll.send_keys(Keys.ARROW_UP)
    assert name.text == "mic1.mrc"
    scroll.send_keys(Keys.END)
    assert name.text == "line\\u2028separator.mrc"
    assert "not denoised" in browser.find_element("css selector", ".message").text
    browser.find_element("css selector", ".before").click()
    assert name.text == "new\\nline.mrc"


def test_the_keyboard_reaches_everything(wide: Any, folder: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(wide, folder / "report.html")
    reached = []
    for _ in range(30):
        wide.find_element("tag name", "body") if not reached else None
        wide.switch_to.active_element.send_keys(Keys.TAB)
        now = wide.execute_script(
            "const e = document.activeElement; return e.className + ' ' + e.type + ' ' + e.textContent.slice(0, 12)"
        )
        reached.append(now)
    text = "\n".join(reached)
    for part in ("divider", "search", "checkbox", "scroll tall", "micrograph", "removed", "after"):
        assert part in text


def test_hostile_names_are_text_and_run_nothing(browser: Any, folder: Path) -> None:
    opened(browser, folder / "report.html")
    shown = rows_of(browser)
    assert HOSTILE[0] in shown
    assert HOSTILE[1] in shown
    assert "new\\nline.mrc" in shown
    assert "broken" not in browser.title
    assert len(browser.find_elements("css selector", "script")) == 2
    assert not browser.find_elements("css selector", "td img")


def test_twenty_thousand_rows_open_and_filter_at_once(browser: Any, folder: Path) -> None:
    page = folder / "many.html"
    opened(browser, page)
    started = time.perf_counter()
    browser.get(page.as_uri())
    assert len(rows_of(browser)) > 10
    assert time.perf_counter() - started < OPENED_WITHIN_S
    assert len(browser.find_elements("css selector", "tr")) < 100
    took = browser.execute_script(
        "const s = document.querySelector('input[type=search]'), t = performance.now(); s.value = '012345';"
        "s.dispatchEvent(new Event('input')); return performance.now() - t"
    )
    assert took < 300
    assert rows_of(browser) == ["Movies/012345.mrc"]
    browser.execute_script(
        "const s = document.querySelector('input[type=search]'); s.value = ''; s.dispatchEvent(new Event('input'))"
    )
    browser.execute_script("document.querySelector('.scroll.tall').scrollTop = 1e9")
    time.sleep(0.2)
    assert rows_of(browser)[-1] == f"Movies/{20_000 - 9 - 1:06d}.mrc"
    browser.find_element("css selector", ".problems").click()
    assert browser.find_element("css selector", ".count").text.startswith("26 of 20,000")


def test_a_live_page_reads_itself_anew_and_keeps_what_was_searched(wide: Any, folder: Path) -> None:
    opened(wide, folder / "live.html")
    wide.execute_script("window.same = true")
    search = wide.find_element("css selector", "input[type=search]")
    search.send_keys("mic1")
    wide.execute_script("document.activeElement.blur()")
    deadline = time.monotonic() + 8
    while wide.execute_script("return window.same === true") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert wide.execute_script("return window.same !== true")
    assert wide.find_element("css selector", "input[type=search]").get_attribute("value") == "mic1"
    assert rows_of(wide) == ["mic1.mrc"]
    wide.find_element("css selector", ".pause").click()
    wide.execute_script("window.same = true")
    time.sleep(2.5)
    assert wide.execute_script("return window.same === true")


def test_a_page_away_from_its_pictures_says_so(chromium: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_bytes((folder / "report.html").read_bytes())
    opened(chromium, tmp_path / "report.html")
    chromium.find_elements("css selector", "tr[data-row]")[1].click()
    time.sleep(0.3)
    assert "from the folder that holds the pictures" in chromium.find_element("css selector", ".message").text
    chromium.get_log("browser")


def save(browser: Any, folder: Path) -> None:
    """Keep a picture of the page where CRYOPLUG_PAGES names a folder."""
    place = Path(os.environ.get("CRYOPLUG_PAGES", ""))
    if place.is_dir():
        width = browser.execute_script("return innerWidth")
        dark = browser.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches")
        browser.save_screenshot(str(place / f"denoise_{width}_{'dark' if dark else 'light'}.png"))
