"""Words of the command line to calls, for every command alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tyro

from gloam.console import printable
from gloam.errors import GloamError


def parse(command: Callable[..., Any], words: Sequence[str], *, prog: str, description: str, config: Any) -> Any:
    """``tyro.cli``; words that a terminal would obey are never printed as they are.

    Raises:
        SystemExit: ``--help`` (code 0), or words that do not fit (code 2, told on standard error).
        GloamError: words that do not fit and hold control characters or bytes that are no UTF-8.
    """
    options = {"prog": prog, "args": list(words), "description": description, "config": config}
    if all(word == printable(word) for word in words):
        return tyro.cli(command, **options)
    try:
        return tyro.cli(command, console_outputs=False, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise GloamError(f"{prog} cannot read these words: {' '.join(words)!r}. See {prog} --help.") from stop
