"""The one exception for mistakes that a user can repair."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GloamError(Exception):
    """A user's mistake or a broken input: the message names the cause and the cure.

    The command line prints it without a traceback and exits with code 2. Programming errors raise ordinary exceptions.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known words, or lists them all.

    Args:
        word: what the user wrote.
        known: every word that would have been right.
    """
    choices = sorted(known)
    near = difflib.get_close_matches(word, choices, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(repr(n) for n in near)}?"
    return f"Known: {', '.join(choices)}." if choices else "None are known."
