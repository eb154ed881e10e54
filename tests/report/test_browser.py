"""The report in a real browser: silent, self-contained, and its controls do what they say."""

from __future__ import annotations

from typing import Any

import pytest

from gloam.report.finished_runs import read_systems
from gloam.report.html_report import TestFeatures, render, section_of
from tests.report.browser import browser_or_skip, chromium, requested
from tests.report.made_runs import made_features, made_images, made_run

_VISIBLE = "[...document.querySelector('.browser').querySelectorAll('.query:not([hidden])')]"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    browser_or_skip()
    folder = tmp_path_factory.mktemp("report")
    splits = made_images(folder / "data")
    systems = read_systems([made_run(folder / "base"), made_run(folder / "agw", method="agw", noise=1.0)], queries=True)
    query, gallery = made_features(splits)
    sections = [
        section_of(n, system, TestFeatures(splits, query, gallery, "cosine"), None, queries=6)
        for n, system in enumerate(systems)
    ]
    place = folder / "report.html"
    place.write_text(render(sections), encoding="utf-8")
    return place.as_uri()


def _choose(driver: Any, control: str, value: str) -> None:
    driver.execute_script(
        "const c = document.querySelector(`.browser [data-control=${arguments[0]}]`); c.value = arguments[1];"
        "c.dispatchEvent(new Event('change', {bubbles: true}))",
        control,
        value,
    )


def _shown(driver: Any, name: str) -> list[str]:
    found: list[str] = driver.execute_script(f"return {_VISIBLE}.map(q => q.dataset[arguments[0]])", name)
    return found


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_loaded_or_complained_of_and_nothing_overflows(page: str, width: int) -> None:
    with chromium(width) as driver:
        driver.get(page)
        assert requested(driver) == [page]
        assert driver.get_log("browser") == []
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert driver.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
        ids = driver.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids))


def test_filters_sorting_and_keys(page: str) -> None:
    from selenium.webdriver.common.keys import Keys

    with chromium() as driver:
        driver.get(page)
        assert _shown(driver, "kinds")
        assert all("worst" in kinds.split() for kinds in _shown(driver, "kinds"))
        _choose(driver, "kind", "all")
        everything = _shown(driver, "ap")
        assert len(everything) > 6
        assert [float(ap) for ap in everything] == sorted(float(ap) for ap in everything)
        _choose(driver, "sort", "ap down")
        assert [float(ap) for ap in _shown(driver, "ap")] == sorted((float(ap) for ap in everything), reverse=True)
        _choose(driver, "cam", "3")
        assert set(_shown(driver, "cam")) == {"3"}
        assert 0 < len(_shown(driver, "cam")) < len(everything)
        _choose(driver, "modality", "infrared")
        _choose(driver, "error", "first")
        assert set(_shown(driver, "first")) <= {"1"}
        told = driver.execute_script("return document.querySelector('.browser .count').textContent")
        assert told == f"{len(_shown(driver, 'cam'))} of {len(everything)} queries"
        driver.execute_script("document.querySelector('.browser [data-reset]').click()")
        first = driver.execute_script("const q = document.querySelector('.query:not([hidden])'); q.focus(); return q")
        first.send_keys("j")
        place = f"return {_VISIBLE}[arguments[0]] === document.activeElement"
        assert driver.execute_script(place, 1)
        driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
        assert driver.execute_script(place, 2)
        driver.switch_to.active_element.send_keys("k")
        assert driver.execute_script(place, 1)
        assert driver.get_log("browser") == []


def test_curves_are_read_off_and_tables_sort(page: str) -> None:
    with chromium() as driver:
        driver.get(page)
        figure = "document.querySelector('figure[data-chart=s0-cmc]')"
        driver.execute_script(
            f"const s = {figure}.querySelector('input[type=range]'); s.value = 5; s.dispatchEvent(new Event('input'))"
        )
        told = driver.execute_script(f"return {figure}.querySelector('output').textContent")
        assert told.startswith("Rank 5: sampled ")
        driver.execute_script(f"{figure}.querySelector('.legend input').click()")
        assert "sampled" not in driver.execute_script(f"return {figure}.querySelector('output').textContent")
        line = "return getComputedStyle(document.getElementById('s0-cmc-line0')).display"
        assert driver.execute_script(line) == "none"
        driver.execute_script("document.querySelectorAll('#together table.sortable th button')[6].click()")
        rows = "[...document.querySelector('#together table.sortable').tBodies[0].rows]"
        column = f"return {rows}.map(r => parseFloat(r.cells[6].textContent))"
        values = driver.execute_script(column)
        assert values == sorted(values)
        assert len(set(values)) > 1


def test_it_is_readable_without_scripts(page: str) -> None:
    with chromium(1280, 900, "--blink-settings=scriptEnabled=false") as driver:
        driver.get(page)
        text = driver.find_element("tag name", "body").text
        assert "Which differences are real?" in text
        assert "first match at rank" in text
        assert "Filter" not in text
        assert not driver.find_element("css selector", ".filters").is_displayed()
        assert driver.find_element("css selector", "figure svg").is_displayed()
