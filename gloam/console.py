"""The one door to the terminal: whatever a file is called, and whatever a message quotes, is shown and never obeyed.

File names may hold rich markup (``[/x]``), emoji codes, terminal escapes and bytes that are no UTF-8. Consoles made
here read no markup in strings (styles come from :func:`styled`) and show control characters by their escapes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
from collections.abc import Iterable
from typing import Any, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# Control characters of ASCII and Latin-1 but for tab and line feed, marks that turn the reading direction, and lone
# surrogates: bytes of a name that is no UTF-8.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """``text`` with everything that a terminal would obey, or could not encode, written as an escape.

    Args:
        text: any string; a byte ``ff`` of a file name (``\\udcff`` in Python) becomes ``\\xff``.
    """
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00  # the byte that the file name really has
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


class _SafeConsole(Console):
    """No markup, no emoji codes, no control characters but rich's own."""

    def render_str(self, text: str, **options: Any) -> Text:
        # Before the layout, so that columns are measured as they will be shown.
        return super().render_str(printable(text), **options | {"markup": False, "emoji": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or not _UNSAFE.search(segment.text):
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


def console(*, stderr: bool = False) -> Console:
    """A console for results (standard output) or for messages and bars (standard error).

    Args:
        stderr: write to standard error.
    """
    return _SafeConsole(stderr=stderr, markup=False, emoji=False)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Text in styles, whose words are never read as markup: ``styled(("error:", "bold red"), " no such file")``.

    Args:
        parts: words, or words with a rich style.
    """
    return Text.assemble(
        *(printable(part) if isinstance(part, str) else (printable(part[0]), part[1]) for part in parts)
    )


def harden_streams() -> None:
    """Let standard output and error replace what their encoding lacks, where they would otherwise raise."""
    for stream in (sys.stdout, sys.stderr):
        # Not a stream of Python's own, or one that is closed.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            cast(io.TextIOWrapper, stream).reconfigure(errors="backslashreplace")


class LogFormatter(logging.Formatter):
    """Lines of a log as safe to show as those of a console; a traceback keeps its lines."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
