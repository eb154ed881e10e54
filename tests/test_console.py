"""What is printed is shown, never obeyed: markup, emoji codes, terminal escapes and bytes that are no UTF-8."""

from __future__ import annotations

import io
import logging

import pytest
from rich.table import Table
from rich.text import Text

from gloam.console import LogFormatter, console, printable, styled
from gloam.progress import progress_bar

EVIL = "[/x][bold]a[/bold] :smile: \x1b[2J\x07\x9b31m\r\udcff \u202egpj.exe"
SHOWN = "[/x][bold]a[/bold] :smile: \\x1b[2J\\x07\\x9b31m\\x0d\\xff \\u202egpj.exe"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain Ångström 行人\n\tnext", "plain Ångström 行人\n\tnext"),
        (EVIL, SHOWN),
        ("\ud800", "\\ud800"),
        ("\x00\x7f", "\\x00\\x7f"),
    ],
)
def test_printable_escapes_what_a_terminal_would_obey(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert printable(printable(text)) == expected
    printable(text).encode()


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: styled((t, "red")), lambda t: styled("error: ", t)])
def test_strings_and_texts_are_shown_as_they_are(wrap, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    console().print(wrap(EVIL), soft_wrap=True)
    assert SHOWN in capsys.readouterr().out


def test_no_renderable_brings_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    console().print(Text(EVIL), soft_wrap=True)
    shown = capsys.readouterr().out
    assert "\\x1b[2J" in shown
    assert not {"\x1b", "\x07", "\r", "\udcff"} & set(shown)


def test_tables_titles_and_cells_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("[/head]", title=EVIL)
    table.add_row(EVIL)
    screen = console()
    screen.width = 200
    screen.print(table)
    shown = capsys.readouterr().out
    assert shown.count(SHOWN) == 2
    assert "[/head]" in shown
    assert "\x1b" not in shown


def test_bars_take_any_text() -> None:
    """rich reads markup in the columns of a bar; an error there hangs the thread that draws it."""
    bar = progress_bar(shown=False)
    bar.add_task("[/x] images", total=3, note="[/note]")
    bar.console.file = io.StringIO()
    bar.console.width = 200
    bar.console.print(bar.get_renderable())
    shown = bar.console.file.getvalue()
    assert "[/x] images" in shown
    assert "[/note]" in shown


def test_log_lines_are_escaped() -> None:
    record = logging.LogRecord("gloam", logging.WARNING, "", 0, "bad file %s", (EVIL,), None)
    assert LogFormatter("%(levelname)s: %(message)s").format(record) == f"WARNING: bad file {SHOWN}"
