"""Patterns such as ``{pid}/{cam}_{modality}_*.jpg`` that read a table out of file names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from gloam.errors import GloamError, did_you_mean
from gloam.image_files import IMAGE_SUFFIXES

FIELDS = ("pid", "cam", "modality", "tracklet", "split")
_TOKEN = re.compile(r"\{(\w*)\}|(\*\*/|\*|\?)|([^{}*?]+)|([{}])")


def compile_pattern(pattern: str, *, needs_pid: bool = True) -> Callable[[str], dict[str, str] | None]:
    """Turn a pattern into a function of relative paths.

    ``{pid}``, ``{cam}``, ``{modality}``, ``{tracklet}`` and ``{split}`` match a number or, failing that, the shortest
    text without a slash; the same field twice must match the same text. ``*`` matches any text without a slash, ``?``
    one character, ``**/`` any folders. Upper and lower case are the same; a pattern that ends in an image's extension
    accepts every image extension.

    Args:
        pattern: as described.
        needs_pid: refuse a pattern without ``{pid}``.

    Returns:
        function: relative path with forward slashes -> the fields' texts, or None where the path does not match.

    Raises:
        GloamError: an unknown field, a lone brace, no ``{pid}``, or a pattern that is none.
    """
    stem = pattern.replace("\\", "/").removeprefix("./")
    suffix = PurePosixPath(stem).suffix
    any_extension = suffix.lower() in IMAGE_SUFFIXES
    if any_extension:
        stem = stem[: -len(suffix)]
    parts: list[str] = []
    seen: set[str] = set()
    for field, wild, text, brace in _TOKEN.findall(stem):
        if wild:
            parts.append({"**/": r"(?:[^/]+/)*", "*": r"[^/]*", "?": r"[^/]"}[wild])
        elif text:
            parts.append(re.escape(text))
        elif brace or field not in FIELDS:
            what = "a lone brace" if brace else f"an unknown field {{{field}}}"
            raise GloamError(f"The folder pattern {pattern!r} has {what}. {did_you_mean(field, FIELDS)}")
        elif field in seen:
            parts.append(f"(?P={field})")
        else:
            seen.add(field)
            # Numbers are taken whole: in {cam}* the camera of 12a is 12, not 1.
            parts.append(rf"(?P<{field}>-?\d+|[^/]+?)")
    if needs_pid and "pid" not in seen:
        raise GloamError(
            f"The folder pattern {pattern!r} does not say where the person is: add {{pid}}. Where nobody is known, "
            "give the option labels=none."
        )
    if any_extension:
        parts.append("(?:" + "|".join(map(re.escape, IMAGE_SUFFIXES)) + ")")
    expression = re.compile("".join(parts), re.IGNORECASE)

    def match(path: str) -> dict[str, str] | None:
        found = expression.fullmatch(path)
        return found.groupdict() if found else None

    return match
