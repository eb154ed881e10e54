"""Rows of own data as texts, from CSV and Parquet tables and from the names in a folder."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gloam.datasets.files import some, walk_images
from gloam.datasets.folder_pattern import FIELDS, compile_pattern
from gloam.errors import GloamError, did_you_mean

COLUMNS = ("path", *FIELDS)
TABLES = (".csv", ".tsv", ".txt", ".parquet", ".pq")


@dataclass(slots=True)
class Row:
    """One image.

    Attributes:
        source: the table or the folder.
        number: row of the table, the first below the names of the columns is 1; None in a folder.
        cells: column -> text, blank where there is none. Columns are those of :data:`COLUMNS`.
    """

    source: Path
    number: int | None
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")

    @property
    def where(self) -> str:
        """For messages: which row, or which image."""
        return f"{self.source}: row {self.number}" if self.number is not None else str(self.source / self["path"])

    def error(self, column: str, problem: str) -> GloamError:
        """The error for a cell: row, column, the beginning of its text, what is wrong."""
        text = self[column]
        shown = repr(text if len(text) <= 40 else f"{text[:40]}...")
        return GloamError(f"{self.where}, column {column}: {shown} {problem}")


def table_rows(path: Path, required: Sequence[str], remarks: list[str]) -> list[Row]:
    """Rows of a CSV or Parquet table.

    Args:
        path: .csv, .tsv, .txt, .parquet or .pq; the first two are UTF-8 with commas, semicolons or tabs.
        required: columns that must be there.
        remarks: gets a sentence about columns that are not read.

    Raises:
        GloamError: no such table, another format, a missing or doubled column, or a cell that cannot be.
    """
    kind = path.suffix.lower()
    if kind not in TABLES:
        raise GloamError(f"{path} is neither a folder nor a .csv, .tsv or .parquet table.")
    header, rows = _read_parquet(path) if kind in (".parquet", ".pq") else _read_csv(path)
    for column in required:
        if column not in header:
            unknown = " Where nobody is known, give the option labels=none." if column == "pid" else ""
            raise GloamError(
                f"{path} has no column {column!r}. {did_you_mean(column, filter(None, header))} "
                f"Columns: {', '.join(COLUMNS)}; {', '.join(required)} required.{unknown}"
            )
    doubled = sorted({name for name in header if name in COLUMNS and header.count(name) > 1})
    if doubled:
        raise GloamError(f"{path} has two columns {doubled[0]!r}. Rename one.")
    foreign = [name for name in header if name and name not in COLUMNS]
    if foreign:
        remarks.append(f"columns that are not read: {some(foreign, 5)}")
    for row in rows:
        for column, text in row.cells.items():
            if "\0" in text:
                raise row.error(column, "holds a null byte: the file is damaged, or no UTF-8 text. Save it again.")
    return rows


def folder_rows(folder: Path, pattern: str, needs_pid: bool, skip: Iterable[Path], remarks: list[str]) -> list[Row]:
    """Images of a folder, read with a pattern.

    Args:
        folder: where to look; linked folders below it are followed.
        pattern: see :func:`gloam.datasets.folder_pattern.compile_pattern`.
        needs_pid: the pattern must say who is shown.
        skip: folders below it that are left out.
        remarks: gets a sentence about images that do not match.

    Raises:
        GloamError: a bad pattern, a name that is no UTF-8, or no image that matches.
    """
    match = compile_pattern(pattern, needs_pid=needs_pid)
    rows, foreign = [], []
    for path in walk_images(folder, skip):
        try:
            path.encode()
        except UnicodeEncodeError:
            shown = path.encode(errors="backslashreplace").decode()
            raise GloamError(f"{folder}: the name {shown} is not UTF-8. Rename it; ids are taken from names.") from None
        fields = match(path)
        if fields is None:
            foreign.append(path)
        else:
            rows.append(Row(folder, None, {"path": path, **fields}))
    if not rows and foreign:
        raise GloamError(
            f"No image under {folder} matches the pattern {pattern!r}: found {some(foreign, 3)}. "
            "Give the option pattern, for example pattern='{pid}/{cam}_*.jpg'; where nobody is known, the option "
            "labels=none."
        )
    if foreign:
        remarks.append(f"{len(foreign)} images do not match {pattern!r} and are ignored: {some(foreign, 3)}")
    return rows


def _read_csv(path: Path) -> tuple[list[str], list[Row]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            delimiter = max(",;\t", key=first.count)
            table = [row for row in csv.reader(stream, delimiter=delimiter) if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise GloamError(f"{path} cannot be read as a CSV table ({error}). Save it as UTF-8 text.") from error
    except OSError as error:
        raise GloamError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not table:
        raise GloamError(f"{path} is empty. Its first line names the columns: {', '.join(COLUMNS)}.")
    header = [cell.strip().lower().removeprefix("\ufeff") for cell in table[0]]
    rows = []
    for number, cells in enumerate(table[1:], start=1):
        # A trailing comma makes rows one cell longer than the header; missing cells at the end are blank.
        if any(cell.strip() for cell in cells[len(header) :]):
            raise GloamError(
                f"{path}: row {number} has {len(cells)} cells, but there are {len(header)} columns. Put texts with a "
                f"{delimiter!r} in quotation marks."
            )
        named = zip(header, cells, strict=False)
        rows.append(Row(path, number, {key: cell.strip() for key, cell in named if key in COLUMNS}))
    return header, rows


def _read_parquet(path: Path) -> tuple[list[str], list[Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            table = pq.read_table(file)
        header = [name.strip().lower() for name in table.column_names]
        columns = {
            key: [_text(value) for value in column.to_pylist()]
            for key, column in zip(header, table.columns, strict=True)
            if key in COLUMNS
        }
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise GloamError(f"{path} cannot be read as a Parquet table ({error}).") from error
    cells = zip(*columns.values(), strict=True)
    return header, [
        Row(path, number, dict(zip(columns, row, strict=True))) for number, row in enumerate(cells, start=1)
    ]


def _text(value: Any) -> str:
    """A cell as text: nothing and NaN are blank, 3.0 is 3 (tables with gaps store whole numbers as floats)."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode().strip()
    return str(value).strip()
