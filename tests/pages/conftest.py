"""Pages in a real browser: Debian's Chromium, driven by its driver. Run them with ``make test-pages``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WIDTHS = (400, 1400)
SCHEMES = ("light", "dark")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave these tests out unless they were asked for: a browser is no part of an installation."""
    here = Path(__file__).parent
    wanted = bool(os.environ.get("CRYOPLUG_PAGES"))
    for item in items:
        if here in item.path.parents and not wanted:
            item.add_marker(pytest.mark.skip(reason="needs a browser: make test-pages"))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Give a browser without a window; what it writes to its console is kept."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert browser and driver, "install them: apt-get install chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


@pytest.fixture(
    params=[(width, scheme) for width in WIDTHS for scheme in SCHEMES], ids=lambda item: f"{item[0]}-{item[1]}"
)
def browser(request: pytest.FixtureRequest, chromium: Any) -> Iterator[Any]:
    """Give the browser at one width in one colour scheme; a line on its console fails the test."""
    width, scheme = request.param
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    chromium.get_log("browser")
    yield chromium
    assert chromium.get_log("browser") == []


@pytest.fixture
def wide(chromium: Any) -> Iterator[Any]:
    """Give the browser on a usual screen."""
    size = {"width": 1400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chromium.get_log("browser")
    yield chromium
    assert chromium.get_log("browser") == []
