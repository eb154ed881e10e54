"""A headless Chromium for tests of pages, and what it says while it shows one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

INSTALL = (
    "needs Chromium and Selenium: apt-get install chromium chromium-driver && pip install selenium (make test-browser)"
)


def browser_or_skip() -> None:
    """Skip the test where no browser is installed."""
    pytest.importorskip("selenium", reason=INSTALL)
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip(INSTALL)


@contextmanager
def chromium(width: int = 1280, height: int = 900, *switches: str) -> Iterator[Any]:
    """A browser without a window; every message of its console and every request is kept."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for switch in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", *switches):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))
    try:
        # The smallest window of a headless browser is 500 pixels wide; this sets the page's own size.
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield driver
    finally:
        driver.quit()


def requested(driver: Any) -> list[str]:
    """Addresses that the page asked for, data inside the page left out."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith("data:")]
