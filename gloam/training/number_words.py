"""How the numbers of an epoch are written for people: rates by their digits, counts as counts."""

from __future__ import annotations

from typing import Any

# Words in the names of numbers that count something.
_COUNTS = {"clusters", "outliers", "identities", "count", "pairs", "images", "labels", "number"}


def is_count(name: str) -> bool:
    """Whether a number counts something, by its name: ``pseudo_labels_clusters``, ``match_count``."""
    words = name.split("_")
    return words[-1] in _COUNTS


def whole(name: str, value: Any) -> Any:
    """A count as an integer; everything else as it is."""
    return int(value) if isinstance(value, float) and is_count(name) and value.is_integer() else value


def number_text(name: str, value: Any) -> str:
    """A number in as many digits as it deserves.

    Args:
        name: of the number: ``lr`` (``3.50e-04``), a count (``1,204``), a rate or duration (``312``, ``14.2``), or a
            loss or share (``0.6931``).
        value: the number; text stays as it is.
    """
    if isinstance(value, bool | str) or value is None:
        return str(value)
    if name == "lr" or name.endswith("_lr"):
        return f"{value:.2e}"
    if isinstance(value, int) or (is_count(name) and float(value).is_integer()):
        return f"{int(value):,}"
    if name.endswith("per_second"):
        return f"{value:,.0f}"
    if name == "seconds":
        return f"{value:,.1f}"
    return f"{value:.4f}"
