"""People and cameras of own data: numbers stay numbers, other texts stay as they are written and get a number."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gloam.datasets.base import id_key
from gloam.datasets.records import RawId, raw_id
from gloam.datasets.table_rows import Row
from gloam.errors import GloamError

LONGEST = 200  # characters of a text that names somebody

_NUMBER = re.compile(r"0|-?[1-9][0-9]*")


def identities(rows: Sequence[Row]) -> list[tuple[int, RawId]]:
    """For every row the number of its person and the id as it is written.

    Where all ids are whole numbers as a computer writes them, the two are the same. Otherwise (``0001``, ``O'Brien``)
    ids stay texts, and their numbers are their ranks in natural order.

    Raises:
        GloamError: a blank, too long or odd cell, a number beyond 64 bits, or one number written in two ways.
    """
    texts = _texts(rows, "pid")
    for row, text in zip(rows, texts, strict=True):
        if not text:
            raise GloamError(f"{row.where} has no pid.")
    if all(_NUMBER.fullmatch(text) for text in texts):
        numbers = [raw_id(text) for text in texts]
        for row, number in zip(rows, numbers, strict=True):
            if not isinstance(number, int):
                raise row.error(
                    "pid", "is a number of more than 64 bits. Write such ids with a letter: then they are texts."
                )
        return [(number, number) for number in numbers if isinstance(number, int)]
    ranks = _ranks(rows, texts, "pid")
    return [(ranks[text], text) for text in texts]


def cameras(rows: Sequence[Row]) -> list[int]:
    """For every row the number of its camera: as written, the rank of other texts, or 0 if there is no such column.

    Raises:
        GloamError: cells that are blank while others are not, too long or odd, or a number beyond 64 bits.
    """
    texts = _texts(rows, "cam")
    if not any(texts):
        return [0] * len(texts)
    for row, text in zip(rows, texts, strict=True):
        if not text:
            raise GloamError(f"{row.where} has no cam; give it in every row or in none.")
    if all(text.removeprefix("-").isdecimal() for text in texts):
        numbers = [int(text) for text in texts]
        for row, number in zip(rows, numbers, strict=True):
            if not -(2**63) <= number < 2**63:
                raise row.error("cam", "is a number of more than 64 bits. Number the cameras from 1.")
        return numbers
    ranks = _ranks(rows, texts, "cam")
    return [ranks[text] for text in texts]


def _texts(rows: Sequence[Row], column: str) -> list[str]:
    seen: set[str] = set()
    texts = [row[column] for row in rows]
    for row, text in zip(rows, texts, strict=True):
        if text in seen:
            continue
        seen.add(text)
        if len(text) > LONGEST:
            digits = "digits" if text.removeprefix("-").isdecimal() else "characters"
            raise row.error(column, f"has {len(text):,} {digits}; at most {LONGEST} are read, and 64 bits of a number.")
        bare = text.removeprefix("-")
        if bare.isdigit() and not bare.isdecimal():
            raise row.error(column, "is written with raised or circled digits. Write it with plain ones.")
    return texts


def _ranks(rows: Sequence[Row], texts: Sequence[str], column: str) -> dict[str, int]:
    written: dict[int, tuple[str, Row]] = {}
    for row, text in zip(rows, texts, strict=True):
        if text.removeprefix("-").isdecimal():
            other, first = written.setdefault(int(text), (text, row))
            if other != text:
                raise row.error(column, f"and {other!r} ({first.where}) are one number. Write it in one way.")
    return {text: rank for rank, text in enumerate(sorted(set(texts), key=id_key))}
