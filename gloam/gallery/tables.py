"""Tables as rows: columns of feature tables and of users' own CSV and Parquet files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gloam.datasets.table import MODALITY_WORDS
from gloam.errors import GloamError, did_you_mean
from gloam.gallery.rows import Row, microseconds, plain

# Column of a row <- names that tables give it.
_NAMES = {
    "key": ("key",),
    "path": ("path",),
    "root": ("root",),
    "frame": ("frame",),
    "box": ("box",),
    "frames": ("frames",),
    "camera": ("camera", "cam"),
    "time": ("time",),
    "modality": ("modality",),
    "tracklet": ("tracklet",),
    "person": ("person", "pid"),
    "sha256": ("sha256",),
}


def rows_of_table(table: pd.DataFrame, *, root: str = "", prefix: str = "", **given: Any) -> list[Row]:
    """One row per line.

    Args:
        table: columns ``key`` or ``path``; and ``root, frame, box, frames, camera`` (or ``cam``), ``time, modality,
            tracklet, person`` (or ``pid``; -1: unknown) where known. Others are ignored. Without a key the row is
            called like its path, with ``#FRAME`` if it has a frame.
        root: folder that paths are relative to, where the table does not say.
        prefix: put before every key that the table does not give.
        **given: values for lines that do not say theirs.

    Raises:
        GloamError: neither key nor path, or values that cannot be read.
    """
    if "key" not in table and "path" not in table:
        raise GloamError("Rows need a name: the table has neither a column key nor a column path.")
    columns: dict[str, Sequence[Any]] = {}
    for name, choices in _NAMES.items():
        column = next((choice for choice in choices if choice in table), None)
        if column is not None:
            read: Callable[[Any], Any] = _READERS.get(name, _text)
            columns[name] = [read(value) for value in table[column].tolist()]
    rows = []
    for line in zip(*columns.values(), strict=True):
        found = {name: value for name, value in zip(columns, line, strict=True) if value is not None}
        values = {**{name: value for name, value in given.items() if value is not None}, **found}
        values.setdefault("root", root)
        if not values.get("key"):
            path = values.get("path", "")
            if path.startswith("["):
                raise GloamError("Images without a file need names: give the column key.")
            frame = values.get("frame")
            values["key"] = prefix + (path if frame is None else f"{path}#{frame}")
        rows.append(Row(**values))
    return rows


def read_table(path: Path) -> pd.DataFrame:
    """A user's CSV, TSV or Parquet file with the column ``path``.

    Raises:
        GloamError: it cannot be read or has no paths.
    """
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, sep="\t" if path.suffix == ".tsv" else ",")
    except Exception as error:
        # pandas and pyarrow raise a dozen kinds for damaged files; each means the same to a user.
        raise GloamError(f"{path} could not be read as a table ({str(error).splitlines()[0]}).") from error
    if "path" not in table:
        raise GloamError(f"{path} has no column path. Found: {', '.join(map(str, table.columns))}.")
    return table


def is_feature_file(path: Path) -> bool:
    """Whether a file holds features (``gloam extract``, ``gallery export``) rather than names of images."""
    if path.suffix == ".npz":
        return path.is_file()
    if not path.is_file() or path.suffix not in (".csv", ".parquet"):
        return False
    try:
        if path.suffix == ".csv":
            return "f0" in pd.read_csv(path, nrows=0).columns
        import pyarrow.parquet

        library: Any = pyarrow.parquet
        return "feature" in library.read_schema(path).names
    except Exception:  # what is no table is read, and complained about, elsewhere
        return False


def modality_number(value: Any) -> int:
    """Number of a modality's word.

    Raises:
        GloamError: no such word.
    """
    word = str(value).lower()
    if word not in MODALITY_WORDS:
        raise GloamError(f"There is no modality {plain(value)!r}. {did_you_mean(word, MODALITY_WORDS)}")
    return int(MODALITY_WORDS[word])


def is_missing(value: Any) -> bool:
    """None, NaN, NaT or empty text."""
    return value is None or value is pd.NaT or value == "" or (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str | None:
    return None if is_missing(value) else str(value)


def whole_number(value: Any) -> int | None:
    """A cell as a whole number; None for an empty one.

    Raises:
        GloamError: something else.
    """
    if is_missing(value):
        return None
    try:
        number = float(value)
        if number != int(number):
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise GloamError(f"{plain(value)!r} is no whole number (cameras, frames).") from error
    return int(number)


def _person(value: Any) -> str | None:
    return None if is_missing(value) or value == -1 or value == "-1" else str(value)


def _box(value: Any) -> tuple[float, float, float, float] | None:
    if isinstance(value, str) and value:
        try:
            value = json.loads(value if value.startswith("[") else f"[{value}]")
        except ValueError:
            value = ()
    if not hasattr(value, "__len__") and is_missing(value):
        return None
    if isinstance(value, str) and not value:
        return None
    try:
        left, top, width, height = (float(part) for part in value)
    except (TypeError, ValueError) as error:
        raise GloamError(f"{plain(value)!r} is no box: give left, top, width, height in pixels.") from error
    return left, top, width, height


def _digest(value: Any) -> bytes | None:
    if isinstance(value, bytes):
        return value
    try:
        return None if is_missing(value) else bytes.fromhex(value)
    except (TypeError, ValueError):
        return None


_READERS: dict[str, Callable[[Any], Any]] = {
    "frame": whole_number,
    "box": _box,
    "frames": whole_number,
    "camera": whole_number,
    "time": microseconds,
    "modality": lambda value: None if is_missing(value) else modality_number(value),
    "person": _person,
    "sha256": _digest,
}
