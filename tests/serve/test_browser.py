"""The page in a real browser: Chromium, headless, driven by Selenium. ``make test-browser`` installs what it needs."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gloam.gallery.gallery import open_gallery
from gloam.gallery.where import Where
from gloam.inference.model import Model
from gloam.serve.settings import Settings
from gloam.serve.tokens import Tokens
from tests.serve.conftest import Running, start_server

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None or importlib.util.find_spec("selenium") is None,
        reason="no Chromium, chromedriver or Selenium: make test-browser installs them (Debian, Ubuntu)",
    ),
]
TOKEN = "b" * 24
AXE = os.environ.get("GLOAM_AXE", "")  # path of axe.min.js


@pytest.fixture(scope="module")
def server(filled: Path, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = Path(shutil.copytree(filled, tmp_path_factory.mktemp("browser") / "people.gallery"))
    running = start_server(open_gallery(folder), Settings(port=0, tokens=Tokens({TOKEN: "reader"})), model)
    yield running
    running.stop()


@pytest.fixture
def browser(server: Running, tmp_path: Path) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1000"):
        options.add_argument(word)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    # A refusal (a wrong token, an unknown row) is logged by the browser itself.
    refusals = ("status of 401", "status of 404")
    complaints = [
        line["message"] for line in driver.get_log("browser") if not any(one in line["message"] for one in refusals)
    ]
    asked = [json.loads(line["message"])["message"] for line in driver.get_log("performance")]
    driver.quit()
    assert not complaints
    addresses = {one["params"]["request"]["url"] for one in asked if one["method"] == "Network.requestWillBeSent"}
    assert any("/v1/search" in address for address in addresses)
    elsewhere = {one for one in addresses if not one.startswith((server.address, "blob:", "data:"))}
    assert not elsewhere


def wait(test: Callable[[], Any], seconds: float = 30) -> Any:
    from selenium.common.exceptions import StaleElementReferenceException

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(StaleElementReferenceException):  # the list was drawn anew meanwhile
            if found := test():
                return found
        time.sleep(0.05)
    raise AssertionError("nothing happened")


def enter(browser: Any, server: Running) -> Callable[[str], list[Any]]:
    """Open the page and give the token; returns a function that finds elements."""
    from selenium.webdriver.common.by import By

    def find(selector: str) -> list[Any]:
        found: list[Any] = browser.find_elements(By.CSS_SELECTOR, selector)
        return found

    browser.get(server.address)
    wait(lambda: find("#ask[open]"))
    find("#token")[0].send_keys("wrong" * 8)
    find("#ask button")[0].click()
    wait(lambda: find("#ask[open]") and find("#token")[0].get_attribute("value") == "")
    find("#token")[0].send_keys(TOKEN)
    find("#ask button")[0].click()
    wait(lambda: find("body[data-ready]"))
    return find


def image_of(folder: Path, modality: str) -> tuple[str, Path]:
    with open_gallery(folder) as gallery:
        row = next(row for block in gallery.catalogue.scan(Where(modality=modality)) for row in block)
    return row.person or "", Path(row.root) / str(row.path)


def run_axe(browser: Any) -> list[str]:
    browser.execute_script(Path(AXE).read_text())
    found = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    return [
        f"{one['id']}: {one['nodes'][0]['html']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def test_find_filter_judge_mark_and_export(browser: Any, server: Running, filled: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    find = enter(browser, server)
    _, path = image_of(filled, "infrared")
    find("#file")[0].send_keys(str(path))
    wait(lambda: find("#canvas")[0].is_displayed())
    Select(find("#image-modality")[0]).select_by_value("infrared")
    Select(find("#modality")[0]).select_by_value("visible")
    find("#search")[0].click()
    cards = wait(lambda: find("#hits > li"))
    assert len(cards) == 20
    assert "visible" in cards[0].text
    assert not any("infrared" in card.text for card in cards)
    wait(lambda: len(find("#hits img")) == 20)
    assert "uncalibrated" in find("#notes")[0].text

    cards[0].find_element("css selector", ".crop").send_keys(Keys.ARROW_RIGHT)
    assert browser.switch_to.active_element.get_attribute("aria-label").startswith("Rank 2")
    before = [card.text.split("\n")[0] for card in cards]
    browser.switch_to.active_element.send_keys("u")  # not this person
    wait(lambda: any("feedback" in note.text for note in find("#notes li")))
    assert [card.text.split("\n")[0] for card in find("#hits > li")] != before
    for number in (0, 1):
        find("#hits .crop")[number].send_keys("m")
        wait(lambda n=number: len(find("#hits > li.marked")) == n + 1)
    find("#save-csv")[0].click()
    table = wait(lambda: next(tmp_path.glob("matches.csv"), None)).read_text().splitlines()
    assert table[0].startswith("rank,score,probability,prior,key,camera")
    assert len(table) == 3
    find("#save-html")[0].click()
    report = wait(lambda: next((one for one in tmp_path.glob("matches.html") if one.stat().st_size), None)).read_text()
    assert report.count("data:image/webp") == 2

    find("#hits .crop")[0].click()
    wait(lambda: find("#detail[open]"))
    wait(lambda: len(find("#detail .strip img")) >= 5)
    assert len(find("#detail .pair img")) == 2
    if AXE:
        assert run_axe(browser) == []
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    wait(lambda: not find("#detail[open]"))
    if AXE:
        assert run_axe(browser) == []


def test_a_row_a_tracklet_and_the_timeline(browser: Any, server: Running) -> None:
    from selenium.webdriver.common.keys import Keys

    find = enter(browser, server)
    find("#help")[0].send_keys("/")
    assert browser.switch_to.active_element.get_attribute("id") == "key"
    browser.switch_to.active_element.send_keys("tracklet:walk 1", Keys.ENTER)
    wait(lambda: find("#hits > li"))
    assert find("#keys button")[0].text.startswith("tracklet:walk 1")
    assert find("#timeline circle")
    find("#cameras input")[0].click()
    find("#search")[0].click()
    chosen = find("#cameras input")[0].get_attribute("value")
    wait(lambda: {card.text.split("camera ")[1].split(",")[0] for card in find("#hits > li")} == {chosen})
    find("#key")[0].send_keys("nobody", Keys.ENTER)
    wait(lambda: find("#status.bad"))
    assert "no row of this key" in find("#status")[0].text


@pytest.mark.parametrize("width", [390, 1280, 2560])
def test_nothing_is_cut_off_at_any_width(width: int, browser: Any, server: Running) -> None:
    from selenium.webdriver.common.keys import Keys

    find = enter(browser, server)
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    find("#key")[0].send_keys("tracklet:walk 1", Keys.ENTER)
    wait(lambda: find("#hits > li"))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    wide = browser.execute_script(
        "const form = document.getElementById('query').getBoundingClientRect();"
        "return [...document.querySelectorAll('#query *')].filter(e => e.getClientRects().length"
        " && e.getBoundingClientRect().right > form.right + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []


def test_a_box_is_drawn_by_mouse_and_moved_by_keys(browser: Any, server: Running, filled: Path) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    find = enter(browser, server)
    _, path = image_of(filled, "visible")
    find("#file")[0].send_keys(str(path))
    canvas = wait(lambda: find("#canvas")[0].is_displayed() and find("#canvas")[0])
    sent = "return window.lastSize"
    browser.execute_script(
        "const old = HTMLCanvasElement.prototype.toBlob;"
        "HTMLCanvasElement.prototype.toBlob = function (...a)"
        "{ window.lastSize = [this.width, this.height]; old.apply(this, a); }"
    )
    whole = (int(canvas.get_attribute("width")), int(canvas.get_attribute("height")))
    find("#search")[0].click()
    assert tuple(wait(lambda: browser.execute_script(sent))) == whole
    ActionChains(browser).move_to_element_with_offset(canvas, -10, -20).click_and_hold().move_by_offset(
        20, 40
    ).release().perform()
    browser.execute_script("window.lastSize = null")
    find("#search")[0].click()
    cut = wait(lambda: browser.execute_script(sent))
    assert cut[0] < whole[0]
    assert cut[1] < whole[1]
    canvas.send_keys(Keys.SHIFT, Keys.ARROW_DOWN)
    browser.execute_script("window.lastSize = null")
    find("#search")[0].click()
    assert wait(lambda: browser.execute_script(sent))[1] > cut[1]
