"""Lists of what there is: readable in a terminal, one line each in a pipe, JSON on request."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from gloam.console import console, printable, styled


@dataclass(frozen=True)
class Entry:
    """One thing of a list.

    Attributes:
        name: what to type.
        lines: for people.
        facts: for programs, ``name`` first; values are plain.
    """

    name: str
    lines: Sequence[str]
    facts: Mapping[str, Any]


def show_entries(entries: Sequence[Entry], *, as_json: bool) -> None:
    """Print a list to standard output.

    In a terminal names stand beside their lines, or above them where it is narrow; they are never cut. In a pipe every
    entry is one line of fields between tabs, the name first.

    Args:
        entries: in order.
        as_json: print a JSON list of the facts instead.
    """
    if as_json:
        _write(json.dumps([dict(entry.facts) for entry in entries], indent=2, ensure_ascii=False) + "\n")
        return
    if not sys.stdout.isatty():
        rows = ([" ".join(field.split()) for field in (entry.name, *entry.lines)] for entry in entries)
        _write("".join("\t".join(row) + "\n" for row in rows))
        return
    screen = console()
    widest = max((len(entry.name) for entry in entries), default=0)
    if widest > screen.width // 2:
        for entry in entries:
            screen.print(styled((entry.name, "bold")), highlight=False, soft_wrap=True)
            for line in entry.lines:
                screen.print(f"  {line}", highlight=False, overflow="fold")
        return
    table = Table.grid(padding=(0, 2))
    table.leading = 1
    table.add_column(no_wrap=True, min_width=widest, style="bold")
    table.add_column(overflow="fold")
    for entry in entries:
        table.add_row(printable(entry.name), "\n".join(map(printable, entry.lines)))
    screen.print(table, highlight=False)


def _write(text: str) -> None:
    """Text to standard output; a reader that stops early (``head``) is no fault."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # What Python would still write at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
