"""What the code cites exists: a page of docs/, a file of a release or a paper, never a document that nobody has."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PAGE = re.compile(r"[\w./-]*\w\.md\b")
# Files that commands write for users, which the code names as well.
WRITTEN = {"table.md"}
SECTION = re.compile(r"[\w-]+\.md(?: section)? \d")


def _lines(*folders: str) -> list[tuple[str, int, str]]:
    paths = [p for folder in folders for kind in ("*.py", "*.yaml") for p in sorted((REPOSITORY / folder).rglob(kind))]
    return [
        (str(path.relative_to(REPOSITORY)), number, line)
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if path != Path(__file__)
    ]


def test_pages_that_the_package_names_exist() -> None:
    missing = [
        f"{path}:{number}: {page}"
        for path, number, line in _lines("gloam")
        for page in PAGE.findall(line)
        if page not in WRITTEN and not (REPOSITORY / page).is_file()
    ]
    assert not missing


def test_no_section_of_a_page_is_cited_by_number() -> None:
    """Numbered sections belong to documents outside the repository; pages here are named, with the fact on them."""
    cited = [f"{path}:{n}: {line.strip()}" for path, n, line in _lines("gloam", "tests", "benchmarks")
             if SECTION.search(line)]  # fmt: skip
    assert not cited
