"""Fixtures that several folders share."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.people_tree import write_sysu
from tests.small_recipes import draw_people


@pytest.fixture(scope="session")
def sysu_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SYSU-MM01-like folder; read only."""
    return write_sysu(tmp_path_factory.mktemp("sysu"))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn sysu_mm01, hitsz_vcm and market1501 side by side; read only."""
    return draw_people(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixel caches of tests go to the test session's folder."""
    monkeypatch.setenv("GLOAM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged may quote names that are not UTF-8, which the workers of pytest-xdist cannot send."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    if report.longrepr is not None and report.failed:
        report.longrepr = str(report.longrepr).encode(errors="backslashreplace").decode()
    return report
